"""Golden values: the reference's answers, and how far rounding errors move them (`python -m shared_spec.conformance.golden`)."""

import hashlib
import json
from functools import cache
from pathlib import Path

import click
import numpy as np
import safetensors.numpy

from shared_spec import files
from shared_spec.conformance.questions import (
    BATCH,
    CASES,
    KEY_BIASES,
    QUESTIONS,
    SEED,
    STEPS,
    Answer,
    ReferenceSubject,
    _answers,
    _bytes,
)
from shared_spec.measure.blocks import Progress, silent
from shared_spec.workload import params
from shared_spec.workload.spec import PRECISIONS, Spec, load_spec

SIGNIFICAND_BITS = {"fp32": 24, "bf16": 8}
"""With the implicit leading one (IEEE 754; bfloat16 is the upper half of a binary32)."""

GOLDEN_FORMAT = 1
"""To be raised with every change of the inputs below or of the reference's answers."""
GOLDEN_FOLDER = Path(__file__).parent / "golden"
PROJECTIONS = 8
"""Random-sign projections kept of each parameter's array: one for each bit of a byte."""


def unit_roundoff(precision: str) -> float:
    """Largest relative error of rounding to nearest at this precision."""
    return 2.0 ** -SIGNIFICAND_BITS[precision]


# --- Golden values: the reference's answers and their sensitivities. ---

Golden = dict[str, np.ndarray]
"""float64 arrays by name of the check, each with what it holds as a suffix.

NAME/value is a whole array. Values for each parameter are kept as NAME/norms [P] and NAME/projections [P, PROJECTIONS],
in canonical order. NAME/fp32 and NAME/bf16 are the sensitivities, [] or [P].
"""


def _relative(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def _worst_step(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value / exact - 1)))


def _worst_learning_rate(value: np.ndarray, exact: np.ndarray) -> float:
    """Error of the rate that was really applied: the least-squares factor between two series of updates [STEPS, C]."""
    return float(np.max(np.abs((value * exact).sum(-1) / (exact * exact).sum(-1) - 1)))


METRICS = {
    **{f"logits, {case}": (_relative, "relative error (L2) of all logits") for case in CASES},
    "trace, logits": (_relative, "relative error (L2) of all logits after the last step"),
    "trace, loss": (_worst_step, "largest relative error of a step"),
    "trace, gradient norm": (_worst_step, "largest relative error of a step"),
    "trace, learning rate": (_worst_learning_rate, "largest relative error of a step, read off head.bias"),
}
"""How two values of a whole array are compared, and what the figure then is."""


def _projections(name: str, value: np.ndarray) -> np.ndarray:
    """Inner products with PROJECTIONS vectors of random signs, [PROJECTIONS].

    The mean square of what separates the projections of two arrays is an unbiased estimate of their squared distance
    (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), within a factor of 2 in either direction for nearly all draws.
    """
    bits = np.unpackbits(_bytes(f"projection {name}", value.size)).reshape(-1, PROJECTIONS)
    flat = value.astype(np.float64).ravel()
    projected: np.ndarray = flat.sum() - 2 * (flat @ bits.astype(np.float64))
    return projected


def _summary(name: str, answer: Answer) -> Golden:
    if isinstance(answer, np.ndarray):
        return {f"{name}/value": answer}
    return {
        f"{name}/norms": np.array([np.linalg.norm(value) for value in answer.values()]),
        f"{name}/projections": np.array([_projections(parameter, value) for parameter, value in answer.items()]),
    }


def _sensitivity(name: str, perturbed: Answer, exact: Answer) -> np.ndarray:
    if isinstance(perturbed, np.ndarray) or isinstance(exact, np.ndarray):
        return np.array(METRICS[name][0](np.asarray(perturbed), np.asarray(exact)))
    return np.array([_relative(perturbed[parameter], value) for parameter, value in exact.items()])


def compute_golden(spec: Spec, progress: Progress = silent) -> Golden:
    """Let the reference answer, exactly and perturbed; about five minutes for the standard spec on two CPU cores."""
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        progress(done / (QUESTIONS * (1 + len(PRECISIONS))), f"reference: {text}")
        done += 1

    perturbed = [ReferenceSubject(spec, unit_roundoff(precision)) for precision in PRECISIONS]
    all_answers = (_answers(subject, spec, tick) for subject in (ReferenceSubject(spec), *perturbed))
    found: Golden = {}
    for (name, exact), *others in zip(*all_answers, strict=True):
        if name != KEY_BIASES:
            exact = _in_order(spec, exact)
            found |= _summary(name, exact)
            for precision, (_, answer) in zip(PRECISIONS, others, strict=True):
                found[f"{name}/{precision}"] = _sensitivity(name, answer, exact)
    return found


def _in_order(spec: Spec, answer: Answer) -> Answer:
    return answer if isinstance(answer, np.ndarray) else {name: answer[name] for name in params.shapes(spec)}


def golden_path(spec: Spec) -> Path:
    """File of a spec's golden values; its name is the fingerprint of all that they depend on."""
    content = spec.to_dict()
    depends = {key: content[key] for key in ("model", "init", "data", "optimizer", "schedule")}
    for key in ("train_images", "test_images", "crop_padding", "flip_probability"):
        del depends["data"][key]
    text = json.dumps([GOLDEN_FORMAT, SEED, BATCH, STEPS, PROJECTIONS, depends], sort_keys=True)
    return GOLDEN_FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


@cache
def golden(spec: Spec, progress: Progress = silent) -> Golden:
    """The golden values of a spec: read where they are kept, otherwise computed."""
    path = golden_path(spec)
    return safetensors.numpy.load_file(path) if path.exists() else compute_golden(spec, progress)


@click.command()
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="A spec file; the standard one by default.")
def main(spec_path: Path | None) -> None:
    """Compute a spec's golden values in float64 and keep them beside this module."""
    spec = load_spec(spec_path)
    found = compute_golden(spec, lambda done, text, **figures: click.echo(f"{100 * done:3.0f} % {text}", err=True))
    path = golden_path(spec)
    files.write_atomic(path, safetensors.numpy.save(found))
    click.echo(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
