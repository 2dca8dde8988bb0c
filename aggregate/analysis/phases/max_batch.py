"""The phase that searches the largest batch that trains."""

import itertools
from collections.abc import Iterator

from aggregate.analysis import memory
from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.phase import Head, Phase, Source
from aggregate.analysis.plausibility import A_TRAINING_STEP, UNIT, Problems, step_seconds
from aggregate.analysis.result import Measured
from shared_spec.results.stability import step_rate

METRICS = (
    Metric("max_batch", "max_batch", "Largest batch that trains", "images", 6,
           "found by doubling and bisection, every try a process of its own; the note says what ended the search"),
    Metric("max_batch_throughput", "max_batch", "Largest batch: throughput", "images/s", 4,
           "batch * steps / seconds over a few steps after two that settle: less sure than the training throughput"),
    Metric("max_batch_memory", "max_batch", "Largest batch: peak memory", "GiB", 3, "as the peak memory of the training"),
    Metric("batch_throughput", "max_batch", "Training, batch", "images/s", 4, "of every batch that was tried and fits"),
    Metric("batch_memory", "max_batch", "Peak memory, batch", "GiB", 3, "of every batch that was tried and fits"),
)  # fmt: skip


def _derive(measured: Measured, source: Source) -> Iterator[Figure]:
    fitting = [t for t in measured["tries"] if t["outcome"] == "fits"]
    largest = next(t for t in fitting if t["batch_size"] == measured["batch_size"])
    yield Figure("max_batch", largest["batch_size"], len(measured["tries"]), notes=(_search_ended(measured),))
    yield _throughput("max_batch_throughput", largest)
    yield memory.peak("max_batch_memory", largest["measurements"]["memory"], source.result)
    for one in fitting:
        yield _throughput("batch_throughput", one, one["batch_size"])
        yield memory.peak("batch_memory", one["measurements"]["memory"], source.result, one["batch_size"])


def _search_ended(measured: Measured) -> str:
    last = next((t for t in reversed(measured["tries"]) if t["outcome"] != "fits"), None)
    why = f" ({last['reason']})" if last and last["reason"] and last["outcome"] != "out of memory" else ""
    return f"the search was ended by {measured['ended_by']}{why}"


def _throughput(metric: str, one: Measured, batch: int | None = None) -> Figure:
    blocks = one["measurements"]["window_blocks"]
    steps = int(sum(steps for steps, _ in blocks))
    return Figure(metric, one["batch_size"] * step_rate(blocks), steps, batch, (f"over {steps:,} steps only",))


def _contradictions(measured: Measured, here: str, head: Head) -> Problems:
    tries = measured["tries"]
    largest = max((t["batch_size"] for t in tries if t["outcome"] == "fits"), default=None)
    if measured["batch_size"] != largest:
        yield f"{here}/batch_size", f"is {measured['batch_size']}, which is not the largest try that fits"
    if len({t["batch_size"] for t in tries}) < len(tries):
        yield f"{here}/tries", "has a batch size twice"
    for i, tried in enumerate(tries):
        if (tried["outcome"] == "fits") == (tried["measurements"] is None):
            yield f"{here}/tries/{i}/measurements", f"do not go with the outcome {tried['outcome']!r}"
    timed = sorted((t["batch_size"], step, i) for i, t, step in _timed(measured))
    for (smaller, before, _), (batch, step, i) in itertools.pairwise(timed):
        if step * UNIT < before:  # slower by any factor is possible: a machine that swaps
            yield (
                f"{here}/tries/{i}/measurements/window_blocks",
                f"says {step:.3g} s at batch {batch:,}, but {before:.3g} s at batch {smaller:,}",
            )


def _timed(measured: Measured) -> Iterator[tuple[int, Measured, float]]:
    """The tries that were timed, with their position and the seconds of a step."""
    for i, tried in enumerate(measured["tries"]):
        if tried["measurements"]:
            yield i, tried, step_seconds(tried["measurements"]["window_blocks"])


def _work(measured: Measured, head: Head) -> Iterator[tuple[str, str, float]]:
    for i, tried, step in _timed(measured):
        if tried["batch_size"] == head.spec.training.batch_size and head.world_size == 1:
            yield A_TRAINING_STEP, f"tries/{i}/measurements/window_blocks", step


PHASE = Phase("max_batch", METRICS, _derive, _contradictions, work=_work)
