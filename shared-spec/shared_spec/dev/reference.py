"""The reference of full trainings, made of committed ones: `python -m shared_spec.dev.reference results/*.json`."""

from collections.abc import Iterator
from pathlib import Path

import click

from shared_spec import files
from shared_spec.errors import UserError
from shared_spec.results import format
from shared_spec.results.format import ConvergenceDone, Result
from shared_spec.results.reference import Band, Reference, ReferenceTraining
from shared_spec.results.upgrade import upgrade
from shared_spec.workload.spec import Spec, load_spec

PATH = Path(__file__).parents[1] / "results" / "reference.json"


def trainings(result: Result, spec: Spec) -> Iterator[ReferenceTraining]:
    """The whole trainings of a result that reached the target of `spec` on CIFAR-100."""
    if result.spec.content.training_fingerprint != spec.training_fingerprint or result.data.source != "cifar-100":
        return
    for outcome in result.phases:
        if not isinstance(outcome, ConvergenceDone):
            continue
        measured = outcome.measurements
        if measured.epochs == spec.training.epochs and (crossing := measured.crossing_at_epochs) is not None:
            yield ReferenceTraining(
                run_id=result.run_id,
                platform=result.platform,
                device=outcome.backend.device.name,
                precision=result.precision,
                seed=outcome.seed,
                final_top1=measured.final_top1,
                epochs_to_target=crossing.steps / measured.steps_per_epoch,
            )


def reference_of(results: list[Result], spec: Spec) -> Reference:
    """The reference that these results make.

    Raises:
        UserError: fewer than two of their trainings are whole, of this workload, and reached its target.
    """
    found = [training for result in results for training in trainings(result, spec)]
    if len(found) < 2:
        raise UserError(f"{len(found)} whole trainings of this workload reached its target; a band needs two or more.")
    return Reference(
        made_by="python -m shared_spec.dev.reference results/*.json",
        training_fingerprint=spec.training_fingerprint,
        epochs=spec.training.epochs,
        trainings=tuple(sorted(found, key=lambda training: (training.platform, training.run_id, training.seed))),
        final_top1=Band.of([training.final_top1 for training in found]),
        epochs_to_target=Band.of([training.epochs_to_target for training in found]),
    )


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Make reference.json of the full trainings in result files."""
    results = [format.parse(upgrade(files.read(path))) for path in paths]
    reference = reference_of(results, load_spec())
    files.write(PATH, reference.to_dict())
    for name, band in (("final top-1", reference.final_top1), ("epochs to target", reference.epochs_to_target)):
        click.echo(f"{name}: {band.mean:.4f} ± {band.spread:.4f}, {band.low:.4f} to {band.high:.4f}")


if __name__ == "__main__":
    main()
