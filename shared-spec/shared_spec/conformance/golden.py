"""Golden values: the reference's answers, and how far rounding errors move them.

Those of the standard spec are committed. After a change of the reference or of a question, raise GOLDEN_FORMAT, then
`python -m shared_spec.conformance.golden` writes them anew.
"""

import hashlib
import json
from pathlib import Path

import click
import numpy as np
import safetensors.numpy

from shared_spec import files
from shared_spec.conformance.comparison import METRICS, PROJECTIONS, projections, relative_error, unit_roundoff
from shared_spec.conformance.questions import (
    BATCH,
    KEY_BIASES,
    QUESTIONS,
    SEED,
    STEPS,
    Answer,
    ReferenceSubject,
    answers,
)
from shared_spec.measure.blocks import Progress, silent
from shared_spec.workload import params
from shared_spec.workload.spec import PRECISIONS, Spec, load_spec

GOLDEN_FORMAT = 1
"""To be raised with every change of the questions or of the reference's answers."""
GOLDEN_FOLDER = Path(__file__).parent / "golden"

Golden = dict[str, np.ndarray]
"""float64 arrays by name of the check, each with what it holds as a suffix.

NAME/value is a whole array. Values for each parameter are kept as NAME/norms [P] and NAME/projections [P, PROJECTIONS],
in canonical order. NAME/fp32 and NAME/bf16 are the sensitivities, [] or [P].
"""

_computed: dict[Path, Golden] = {}
"""Golden values of this process that no file holds, by the path a file would have."""


def golden(spec: Spec, progress: Progress = silent) -> Golden:
    """The golden values of a spec: read where they are kept, otherwise computed, once in a process."""
    path = golden_path(spec)
    if path.exists():
        return safetensors.numpy.load_file(path)
    if path not in _computed:
        _computed[path] = compute_golden(spec, progress)
    return _computed[path]


def golden_path(spec: Spec) -> Path:
    """File of a spec's golden values; its name is the fingerprint of all that they depend on."""
    content = spec.to_dict()
    depends = {key: content[key] for key in ("model", "init", "data", "optimizer", "schedule")}
    for key in ("train_images", "test_images", "crop_padding", "flip_probability"):
        del depends["data"][key]
    text = json.dumps([GOLDEN_FORMAT, SEED, BATCH, STEPS, PROJECTIONS, depends], sort_keys=True)
    return GOLDEN_FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


def compute_golden(spec: Spec, progress: Progress = silent) -> Golden:
    """Let the reference answer, exactly and perturbed; about five minutes for the standard spec on two CPU cores."""
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        progress(done / (QUESTIONS * (1 + len(PRECISIONS))), f"reference: {text}")
        done += 1

    perturbed = [ReferenceSubject(spec, unit_roundoff(precision)) for precision in PRECISIONS]
    all_answers = (answers(subject, spec, tick) for subject in (ReferenceSubject(spec), *perturbed))
    values: Golden = {}
    for (name, answer), *others in zip(*all_answers, strict=True):
        if name != KEY_BIASES:
            exact = _in_order(spec, answer)
            values |= _summary(name, exact)
            for precision, (_, rounded) in zip(PRECISIONS, others, strict=True):
                values[f"{name}/{precision}"] = _sensitivity(name, rounded, exact)
    return values


def _in_order(spec: Spec, answer: Answer) -> Answer:
    return answer if isinstance(answer, np.ndarray) else {name: answer[name] for name in params.shapes(spec)}


def _summary(name: str, answer: Answer) -> Golden:
    if isinstance(answer, np.ndarray):
        return {f"{name}/value": answer}
    return {
        f"{name}/norms": np.array([np.linalg.norm(value) for value in answer.values()]),
        f"{name}/projections": np.array([projections(parameter, value) for parameter, value in answer.items()]),
    }


def _sensitivity(name: str, perturbed: Answer, exact: Answer) -> np.ndarray:
    if isinstance(perturbed, np.ndarray) or isinstance(exact, np.ndarray):
        return np.array(METRICS[name][0](np.asarray(perturbed), np.asarray(exact)))
    return np.array([relative_error(perturbed[parameter], value) for parameter, value in exact.items()])


@click.command()
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="A spec file; the standard one by default.")
def main(spec_path: Path | None) -> None:
    """Compute a spec's golden values in float64 and keep them beside this module."""
    spec = load_spec(spec_path)
    values = compute_golden(spec, lambda done, text, **figures: click.echo(f"{100 * done:3.0f} % {text}", err=True))
    path = golden_path(spec)
    files.write_atomic(path, safetensors.numpy.save(values))
    click.echo(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
