"""What charts show of a run: raw samples, figures of a metric, and figures by batch size."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregate.analysis.answer import Standing
from aggregate.analysis.merging import Run, merged
from shared_spec.results.measurements import Convergence, Latency, Training
from shared_spec.results.prices import NoPrice

BY_BATCH = ("batch_throughput", "batch_memory", "inference_throughput")
"""Metrics that are known at several batch sizes."""


def drawable(values: np.ndarray) -> bool:
    """Whether an axis can carry these values; a file can hold any that a float can."""
    return bool(len(values) and values.min() > 1e-9 and values.max() < 1e12)


def block_rates(run: Run) -> np.ndarray:
    """Training images/s of all blocks of all repeats."""
    each = run.measured(Training)
    return np.array([rate for measured in each for rate in measured.block_images_per_second])


def latencies(run: Run) -> np.ndarray:
    """Batch-1 latencies of all repeats, ms."""
    return 1e3 * np.array([t for measured in run.measured(Latency) for t in measured.host_to_host_seconds])


def by_batch(run: Run, metric: str) -> list[tuple[int, float]]:
    """(batch, median of the repeats) of a metric in the order of the batches."""
    points = []
    for (key, size), figures in run.figures.items():
        values = np.array([figure.value for figure in figures if not figure.reason])
        if key == metric and size is not None and drawable(values):
            points.append((size, float(np.median(values))))
    return sorted(points)


def standings(runs: Sequence[Run], metric: str) -> dict[str, list[Standing]]:
    """The merged figures of those runs that have one which compares and which an axis can carry, by what they are of."""
    found: dict[str, list[Standing]] = {}
    for run in runs:
        if not (figures := run.repeats(metric)) or uncompared(run, metric):
            continue
        one = merged(figures)
        if drawable(np.array([one["value"]])):
            numbers = (one["value"], one["low"], one["high"], one["repeats"], one["unit"])
            found.setdefault(one["basis"], []).append(Standing(run, metric, *numbers, notes=one["notes"]))
    return found


def uncompared(run: Run, metric: str) -> str:
    """Why a run's figures of a metric compare with nothing; empty where nothing speaks against it."""
    return next((figure.uncompared for figure in run.repeats(metric) if figure.uncompared), "")


@dataclass(frozen=True)
class Curve:
    """Top-1 of one full training, evaluation by evaluation.

    Attributes:
        top1: per cent.
        minutes: at the end of the evaluation.
        kilojoules: so far; NaN where there was no meter.
        cost: rental so far, where its price is not known that of owning; None where neither is.
    """

    top1: np.ndarray
    minutes: np.ndarray
    kilojoules: np.ndarray
    cost: np.ndarray | None


def curves(run: Run) -> list[Curve]:
    """Of every full training of a run."""
    per_hour = _per_hour(run)
    made = []
    for measured in run.measured(Convergence):
        rows = measured.evaluations
        seconds = np.array([row.seconds for row in rows])
        joules = np.array([row.joules for row in rows], dtype=float)
        top1 = 100 * np.array([row.top1 for row in rows])
        made.append(Curve(top1, seconds / 60, joules / 1e3, None if per_hour is None else per_hour * seconds / 3600))
    return made


def _per_hour(run: Run) -> float | None:
    for priced in (run.prices.rent, run.prices.own):
        with contextlib.suppress(NoPrice):
            return priced(run.hardware.model, run.hardware.cores).amount
    return None
