"""The phase that searches the largest batch that trains."""

import itertools
from collections.abc import Iterator

from aggregate.analysis import memory
from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.plausibility import A_TRAINING_STEP, UNIT, Problems, world_size
from shared_spec.results.format import Result
from shared_spec.results.measurements import FITS, MaxBatch, Try

METRICS = (
    Metric("max_batch", "max_batch", "Largest batch that trains", "images", 6,
           "found by doubling and bisection, every try a process of its own; it trained for a whole window and evaluated; "
           "the note says what ended the search"),
    Metric("max_batch_throughput", "max_batch", "Largest batch: throughput", "images/s", 4,
           "batch * steps / seconds over a window after two steps that settle"),
    Metric("max_batch_memory", "max_batch", "Largest batch: peak memory", "GiB", 3, "as the peak memory of the training"),
    Metric("batch_throughput", "max_batch", "Training, batch", "images/s", 4, "of every batch that was tried and fits"),
    Metric("batch_memory", "max_batch", "Peak memory, batch", "GiB", 3, "of every batch that was tried and fits"),
)  # fmt: skip


def _derive(measured: MaxBatch, source: Source) -> Iterator[Figure]:
    fitting = {tried.batch_size: tried for tried in measured.tries if tried.measurements}
    largest = fitting[measured.batch_size]
    assert largest.measurements is not None
    short = "" if largest.measurements.whole else "not compared: it trained for a few steps only and did not evaluate"
    notes = (_search_ended(measured), *[short] * bool(short))
    yield Figure("max_batch", largest.batch_size, len(measured.tries), notes=notes, uncompared=short)
    yield from _of_try(largest, source, "max_batch_throughput", "max_batch_memory")
    for batch, tried in fitting.items():
        yield from _of_try(tried, source, "batch_throughput", "batch_memory", batch)


def _search_ended(measured: MaxBatch) -> str:
    last = next((t for t in reversed(measured.tries) if t.outcome != FITS), None)
    why = f" ({last.reason})" if last and last.reason and last.outcome != "out of memory" else ""
    return f"the search was ended by {measured.ended_by}{why}"


def _of_try(tried: Try, source: Source, throughput: str, peak: str, batch_size: int | None = None) -> Iterator[Figure]:
    """The two figures of a batch that fits, under the names of their metrics."""
    if (measured := tried.measurements) is None or (rate := tried.images_per_second) is None:
        return
    notes = () if measured.whole else (f"over {measured.steps:,} steps only",)
    yield Figure(throughput, rate, measured.steps, batch_size, notes)
    yield memory.peak(peak, measured.memory, source.result, batch_size)


def _contradictions(measured: MaxBatch, here: str, result: Result) -> Problems:
    tries = measured.tries
    largest = max((t.batch_size for t in tries if t.outcome == FITS), default=None)
    if measured.batch_size != largest:
        yield f"{here}/batch_size", f"is {measured.batch_size}, which is not the largest try that fits"
    if len({t.batch_size for t in tries}) < len(tries):
        yield f"{here}/tries", "has a batch size twice"
    for i, tried in enumerate(tries):
        if (tried.outcome == FITS) == (tried.measurements is None):
            yield f"{here}/tries/{i}/measurements", f"do not go with the outcome {tried.outcome!r}"
    for i, tried in enumerate(tries):
        if tried.measurements:
            yield from memory.too_many_images(tried.batch_size, tried.measurements.memory, f"{here}/tries/{i}", result)
    chosen = [(i, t.measurements) for i, t in enumerate(tries) if t.batch_size == largest and t.measurements]
    for i, of_largest in chosen:
        if of_largest.whole is False:
            yield (
                f"{here}/tries/{i}/measurements/whole",
                "is false, and the largest batch has to train for a whole window",
            )
    timed = sorted((t.batch_size, step, i) for i, t, step in _timed(measured))
    for (smaller, before, _), (batch, step, i) in itertools.pairwise(timed):
        if step * UNIT < before:  # slower by any factor is possible: a machine that swaps
            yield (
                f"{here}/tries/{i}/measurements/window_blocks",
                f"says {step:.3g} s at batch {batch:,}, but {before:.3g} s at batch {smaller:,}",
            )


def _timed(measured: MaxBatch) -> Iterator[tuple[int, Try, float]]:
    """The tries that were timed, with their position and the seconds of a step."""
    for i, tried in enumerate(measured.tries):
        if tried.measurements:
            yield i, tried, tried.measurements.step_seconds_mean


def _work(measured: MaxBatch, result: Result) -> Iterator[Work]:
    for i, tried, step in _timed(measured):
        if tried.batch_size == result.spec.content.training.batch_size and world_size(result) == 1:
            yield Work(A_TRAINING_STEP, f"tries/{i}/measurements/window_blocks", step)


PHASE = Phase("max_batch", METRICS, _derive, _contradictions, work=_work)
