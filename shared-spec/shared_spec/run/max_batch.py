"""The search for the largest batch that trains: doubling, then bisection; every try is somebody else's process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from shared_spec.machine import limits
from shared_spec.machine.probe import Asker, Unread
from shared_spec.results.format import Failed, FailureKind, TryDone
from shared_spec.results.measurements import FAULT, FITS, Try, TryOutcome
from shared_spec.results.quantities import Memory

OF_FAILURE: dict[FailureKind, TryOutcome] = {
    "out_of_memory": "out of memory",
    "too_slow": "time limit",
    "watchdog": "time limit",
}
"""What a try that failed says of its batch size, by kind of failure; every other kind is a fault."""


@dataclass(frozen=True)
class Found:
    """The largest batch that fitted (None: none did), every try in order, and what ended the search."""

    batch_size: int | None
    tries: list[Try]
    ended_by: str


def classify(batch_size: int, outcome: TryDone | Failed) -> Try:
    """What a try of one batch size says: it fits, memory ran out, it was too slow, or something else is wrong."""
    verdict = FITS if outcome.failure is None else OF_FAILURE.get(outcome.failure, FAULT)
    return Try(batch_size=batch_size, outcome=verdict, reason=outcome.reason, measurements=outcome.measurements)


def memory_bound(device: str, share: float) -> float | None:
    """Bytes a try may take where the device's memory is the machine's own; None where the device has its own."""
    if device != "cpu" and sys.platform != "darwin":
        return None
    try:
        memory = Asker().ask(psutil.virtual_memory)
    except Unread:  # without it each try is held by its outcome alone
        most = []
    else:
        most = [share * memory.total, 0.9 * memory.available]
    if (limit := limits.memory_limit()) is not None:
        most.append(share * limit)
    return float(min(most)) if most else None


WORKING_SET = "recommended_working_set_bytes"
"""Detail of a backend: what the system wants the device to take of a memory that it shares with everything else."""


def tightened(bound: float | None, outcome: TryDone | Failed) -> float | None:
    """The bound, no larger than the working set that the device of a try was recommended."""
    working_set = outcome.backend.details.get(WORKING_SET) if outcome.backend else None
    return min(bound, working_set) if bound is not None and isinstance(working_set, int) else bound


def taken_bytes(memory: Memory) -> int:
    """What a try took of a memory that everything shares, by its figures.

    A Mac's resident set does not count Metal's buffers, which its footprint does; MLX's peak does not count its cache.
    """
    figures = {name: value or 0 for name, value in memory.items()}
    framework = figures.get("mlx_peak", 0) + figures.get("mlx_cache", 0)
    return max(figures.get("host_peak", 0), figures.get("footprint_peak", 0), framework)


def predicted_bytes(tries: list[Try], batch_size: int) -> float | None:
    """Peak memory of a batch, by the line through the two largest batches that fitted; None where none did.

    Where only one did it is the line through nothing at all, which is too much for a larger batch.
    """
    known = sorted((t.batch_size, taken_bytes(t.measurements.memory)) for t in tries if t.measurements)
    if not known:
        return None
    (b0, m0), (b1, m1) = [(0, 0), *known][-2:]
    return float(m1 + (m1 - m0) / (b1 - b0) * (batch_size - b1))


def confirmed(found: Found, attempt: Callable[[int], Try]) -> Found:
    """The largest batch of a search that also trains for a whole window and evaluates, as `attempt` says.

    A batch that does not is no fit any more, and the next smaller one that fitted a few steps is put to the same test.
    The longer try of a batch takes the place of the shorter one.
    """
    tries, ended_by = list(found.tries), found.ended_by
    while fitting := [t for t in tries if t.outcome == FITS]:
        largest = max(fitting, key=lambda t: t.batch_size)
        whole = attempt(largest.batch_size)
        tries = [t for t in tries if t is not largest] + [whole]
        if whole.outcome == FITS:
            return Found(whole.batch_size, tries, ended_by)
        ended_by = f"batch {whole.batch_size}: fitted a few steps, but not a whole window and an evaluation"
    return Found(None, tries, ended_by)


def search(
    attempt: Callable[[int], Try],
    start: int,
    largest: int,
    memory_bound: Callable[[], float | None],
    resolution: float = 1 / 16,
) -> Found:
    """Find the largest batch that fits, as `attempt` says.

    Args:
        attempt: tries one batch size, for a few steps.
        start: first batch size tried.
        largest: no batch beyond this is tried.
        memory_bound: bytes that a try may be predicted to take, on machines where everything shares one memory; asked
            before every try, since the first one tells more of the device.
        resolution: the search ends when the gap between fitting and not is this fraction of the fitting batch.
    """
    tries: list[Try] = []
    fits, fails, size = 0, largest + 1, min(start, largest)
    ended_by = f"--max-batch {largest}"
    while fits < size < fails:
        bound, predicted = memory_bound(), predicted_bytes(tries, size)
        if predicted is not None and bound is not None and predicted > bound:
            learning = fits + max(1, fits // 8)
            if len(tries) == 1 and size > learning:  # one more try, and the line is known
                size = learning
                continue
            fails = size
            ended_by = f"batch {size} would take {predicted / 2**30:.1f} GiB of the {bound / 2**30:.1f} GiB allowed"
        else:
            tries.append(attempt(size))
            if tries[-1].outcome == FITS:
                fits = size
            else:
                fails = size
                ended_by = f"batch {size}: {tries[-1].outcome}"
            if tries[-1].outcome == FAULT:
                break
        if fails > largest:
            size = min(2 * fits, largest)
        elif fails - fits <= max(1, resolution * fits):
            break
        else:
            size = (fits + fails) // 2
    return Found(fits or None, tries, ended_by)
