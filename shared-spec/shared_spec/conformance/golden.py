"""Golden values: the reference's answers, and how far rounding errors move them.

Those of the standard spec are committed. After a change of the reference or of a question, raise GOLDEN_FORMAT, then
`python -m shared_spec.conformance.golden` writes them anew, with --losses those of losses.py.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import get_args

import click
import numpy as np
import safetensors.numpy

from shared_spec import files
from shared_spec.conformance.error_measures import METRICS, PROJECTIONS, projections, relative_error, unit_roundoff
from shared_spec.conformance.losses import compute_losses, losses_path
from shared_spec.conformance.probes import (
    BATCH,
    KEY_BIASES,
    SEED,
    STEPS,
    TICKS,
    Answer,
    ReferenceSubject,
    answers,
    probe_batch,
)
from shared_spec.data import cifar100
from shared_spec.errors import UserError
from shared_spec.measure.timing import Progress, silent
from shared_spec.workload import params
from shared_spec.workload.arrays import ArrayModule, Arrays, arrays
from shared_spec.workload.spec import PRECISIONS, Spec, load_spec

GOLDEN_FORMAT = 1
"""To be raised with every change of the probes or of the reference's answers."""
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
        progress(done / (TICKS * (1 + len(PRECISIONS))), f"reference: {text}")
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


def logits_sensitivity(spec: Spec, precision: str) -> float:
    """Sensitivity of the initial weights' logits; without a file these alone are computed, not all that golden has."""
    if golden_path(spec).exists() or golden_path(spec) in _computed:
        return float(golden(spec)[f"{INITIAL}/{precision}"])
    exact, rounded = (_initial_logits(spec, u) for u in (0.0, unit_roundoff(precision)))
    return relative_error(rounded, exact)


def largest_initial_logit(spec: Spec) -> float:
    """Largest size of a logit of the initial weights on conformance's images."""
    kept = golden_path(spec).exists() or golden_path(spec) in _computed
    logits = golden(spec)[f"{INITIAL}/value"] if kept else _initial_logits(spec, 0.0)
    return float(np.max(np.abs(logits)))


INITIAL = "logits, initial weights"


@cache
def _initial_logits(spec: Spec, u: float) -> np.ndarray:
    subject = ReferenceSubject(spec, u)
    subject.load(params.initial(spec))
    return subject.logits(probe_batch(spec, 0))


@click.command()
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="A spec file; the standard one by default.")
@click.option("--losses", is_flag=True, help="The losses of the first training steps instead: losses.py.")
@click.option("--data", help="Of the losses: folder of the CIFAR-100 files, or synthetic for the stand-in.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Of the losses; the spec's first three by default.")
@click.option("--arrays", "module", type=click.Choice(get_args(ArrayModule)), default="numpy", show_default=True,
              help="What computes: cupy takes a machine with CUDA, and minutes instead of hours.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files, in place of the one beside here.")
def main(
    spec_path: Path | None,
    losses: bool,
    data: str | None,
    seeds: tuple[int, ...],
    module: ArrayModule,
    out: Path | None,
) -> None:
    """Compute a spec's golden values in float64 and keep them beside this module."""
    try:
        spec = load_spec(spec_path)
        if losses:
            _make_losses(spec, data, seeds or spec.training.seeds[:3], arrays(module), out)
        else:
            _keep(golden_path(spec), compute_golden(spec, _tell), out)
    except UserError as error:
        raise click.ClickException(str(error)) from error


def _tell(done: float, text: str, **figures: float) -> None:
    click.echo(f"{100 * done:3.0f} % {text}", err=True)


def _make_losses(spec: Spec, data: str | None, seeds: tuple[int, ...], module: Arrays, out: Path | None) -> None:
    dataset = cifar100.load(cifar100.locate(data, progress=False), spec)
    size = spec.training.batch_size
    for seed in seeds:
        _keep(losses_path(spec, dataset, size, seed), compute_losses(spec, dataset, size, seed, module, _tell), out)


def _keep(path: Path, values: Golden, out: Path | None) -> None:
    """Write golden values atomically to `path`, or under its name into the folder `out`."""
    path = path if out is None else out / path.name
    files.write_atomic(path, safetensors.numpy.save(values))
    click.echo(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
