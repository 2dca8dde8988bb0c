"""The phase that measures inference at growing batch sizes."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from aggregate.analysis import memory
from aggregate.analysis.metrics import Figure, Metric, absent
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.plausibility import AN_INFERENCE_OF_ONE, Problems, apart
from aggregate.analysis.result import Result
from shared_spec.results import format, stability
from shared_spec.results.measurements import Inference

METRICS = (
    Metric("inference_reference", "inference", "Inference throughput", "images/s", 4,
           "at the workload's batch, so that all are compared at the same one; images on the device"),
    Metric("inference_best", "inference", "Inference throughput, best", "images/s", 4,
           "over the batch sizes tried, at a batch of its own; the note says which"),
    Metric("inference_throughput", "inference", "Inference, batch", "images/s", 4,
           "batch * steps / seconds over the whole window, images on the device", warns=True),
)  # fmt: skip


def _derive(measured: Inference, source: Source) -> Iterator[Figure]:
    figures = []
    for size in measured.sizes:
        rules = source.result.spec.content.measuring
        notes = stability.of_window(size.window_blocks, size.steady, rules).objections
        figures.append(Figure("inference_throughput", size.images_per_second, size.steps, size.batch_size, notes))
    yield _at(source.result.spec.content.training.batch_size, figures)
    best = max(figures, key=lambda figure: figure.value)
    yield Figure("inference_best", best.value, best.n, notes=(f"at batch {best.batch_size:,}", *best.notes))
    yield from figures


def _at(batch_size: int, figures: Sequence[Figure]) -> Figure:
    """The throughput at one batch size, as a figure of its own."""
    metric = "inference_reference"
    for figure in figures:
        if figure.batch_size == batch_size:
            return dataclasses.replace(figure, metric=metric, batch_size=None)
    return absent(metric, f"batch {batch_size:,} was not tried")


def untried(results: Sequence[Result], profiles: Sequence[str]) -> str:
    """Why a run, of these results and profiles, has no inference figure at a batch size that others have."""
    stopped = [measured.stopped for result in results for measured in result.measured(Inference)]
    reason = next(filter(None, stopped), None)
    return f"not tried after {reason}" if reason else f"profile {' and '.join(profiles)} ends at a smaller batch"


def _contradictions(measured: Inference, here: str, result: format.Result) -> Problems:
    sizes = measured.sizes
    if len({size.batch_size for size in sizes}) < len(sizes):
        yield f"{here}/sizes", "has a batch size twice"
    most = result.profile.content.inference_max_batch
    for i, size in enumerate(sizes):
        if size.batch_size > most or size.batch_size.bit_count() != 1:
            yield f"{here}/sizes/{i}/batch_size", f"is {size.batch_size:,}; the profile has 1, 2, 4 ... {most:,}"
        yield from memory.too_many_images(size.batch_size, size.memory, f"{here}/sizes/{i}", result)
    steps = sorted((size.batch_size, size.step_seconds_mean, i) for i, size in enumerate(sizes))
    for (smaller, before, _), (batch, step, i) in itertools.pairwise(steps):
        if batch <= 2 * smaller:
            yield from apart(f"{here}/sizes/{i}/window_blocks", step, f"at batch {smaller:,} it is", before)


def _seconds(measured: Inference) -> float:
    first = math.fsum(size.first_inference_seconds for size in measured.sizes)
    return first + math.fsum(_windows(measured).values())


def _windows(measured: Inference) -> dict[str, float]:
    return {f"sizes/{i}/window_blocks": s.seconds for i, s in enumerate(measured.sizes)}


def _work(measured: Inference, result: format.Result) -> Iterator[Work]:
    for i, size in enumerate(measured.sizes):
        if size.batch_size == 1:
            yield Work(AN_INFERENCE_OF_ONE, f"sizes/{i}/window_blocks", size.step_seconds_mean)


PHASE = Phase("inference", METRICS, _derive, _contradictions, _seconds, _windows, "inference_seconds", _work)
