"""Reference trainings: between which bounds a right training of this workload ends, and when it crosses the target.

MLPerf's reference convergence points fail a training that needs too few epochs. Here one that learns slower or faster
than the committed trainings is flagged, and nothing more: they are few. reference.json is made of them by
`python -m shared_spec.dev.reference results/*.json`.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from shared_spec import files, schema
from shared_spec.results.measurements import Convergence
from shared_spec.results.quantities import Count, Fraction, NonNegative, Positive, Sha256
from shared_spec.results.stability import student_975
from shared_spec.schema import ARRAY, Finite, Model
from shared_spec.workload.spec import Precision, Seed, Spec


class ReferenceTraining(Model):
    """A whole training that the bounds come from."""

    run_id: str
    platform: str
    device: str
    precision: Precision
    seed: Seed
    final_top1: Fraction
    epochs_to_target: Positive = Field(description="Interpolated between the ends of epochs")


class Band(Model):
    """Where one more training is expected: a 95 % prediction interval, mean ± t s sqrt(1 + 1/n), Student's t for n - 1."""

    mean: Finite
    spread: NonNegative = Field(description="Standard deviation of the trainings")
    low: Finite
    high: Finite

    @classmethod
    def of(cls, values: Sequence[float]) -> "Band":
        """The band of two values or more."""
        n, mean, spread = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
        half = student_975(n - 1) * spread * math.sqrt(1 + 1 / n)
        return cls(mean=mean, spread=spread, low=mean - half, high=mean + half)


class Reference(Model):
    """The reference trainings of a workload on CIFAR-100, and their bands."""

    made_by: Literal["python -m shared_spec.dev.reference results/*.json"]
    training_fingerprint: Sha256
    epochs: Count
    trainings: Annotated[tuple[ReferenceTraining, ...], ARRAY, Field(min_length=2, max_length=1000)]
    final_top1: Band
    epochs_to_target: Band


@cache
def load_reference() -> Reference:
    """The reference that came with the package."""
    text = resources.files("shared_spec").joinpath("results", "reference.json").read_text(encoding="utf-8")
    return schema.parse(Reference, files.loads(text))


def applies(spec: Spec, data: str) -> bool:
    """Whether there is a reference for a workload on this data ("cifar-100", "synthetic")."""
    return data == "cifar-100" and spec.training_fingerprint == load_reference().training_fingerprint


def flags(measured: Convergence, spec: Spec, data: str) -> list[str]:
    """How a training differs from the reference's, a sentence each; none where it does not, or there is none."""
    if not applies(spec, data):
        return []
    reference, found = load_reference(), []
    final, top1, crossing = reference.final_top1, measured.final_top1, measured.crossing_at_epochs
    of = f"of {len(reference.trainings)} reference trainings"
    if measured.epochs == spec.training.epochs and not final.low <= top1 <= final.high:
        worse = "worse" if top1 < final.low else "better"
        found.append(f"it ended {worse} than expected {of}: {top1:.2%} top-1, not {final.low:.2%} to {final.high:.2%}")
    if crossing is not None:
        epochs, band = crossing.steps / measured.steps_per_epoch, reference.epochs_to_target
        if not band.low <= epochs <= band.high:
            speed = "slower" if epochs > band.high else "faster"
            found.append(
                f"it learned {speed} than expected {of}: {epochs:.2f} epochs to the target, not {band.low:.2f} to "
                f"{band.high:.2f}"
            )
    return found
