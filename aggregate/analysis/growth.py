"""How memory and time grow with the batch, and from where on they grow faster than it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[tuple[int, float]]
"""(batch, figure at that batch) in the order of the batches."""

STEEPER = 1.25
"""Memory for another image, from one batch to the next, above this multiple of what it was at first, is no longer
linear; allocators round, so that less says nothing."""
SLOWER = 1.05
"""An image that takes this much longer than in a smaller batch: time grows faster than the batch."""


@dataclass(frozen=True)
class MemoryGrowth:
    """Peak memory against the batch.

    Attributes:
        first: the smallest batch.
        last: the largest.
        mib_per_image: mean over all between.
        steeper_from: the batch from which on an image takes more than at first; None where it never does.
    """

    first: int
    last: int
    mib_per_image: float
    steeper_from: int | None


def memory_growth(points: Points) -> MemoryGrowth | None:
    """Growth of peak memory in GiB; None for fewer than two batches."""
    if len(points) < 2:
        return None
    (first, least), (last, most) = points[0], points[-1]
    slopes = [(m - k) / (b - a) for (a, k), (b, m) in itertools.pairwise(points)]
    steep = [points[i][0] for i, slope in enumerate(slopes) if slope > STEEPER * max(slopes[0], 0) and slope > 0]
    return MemoryGrowth(first, last, 1024 * (most - least) / (last - first), steep[0] if steep else None)


@dataclass(frozen=True)
class Slowdown:
    """A batch at which an image takes longer than it did in a smaller one.

    Attributes:
        batch: that batch.
        times: how many times as long an image takes.
        fastest: the batch at which it took least.
    """

    batch: int
    times: float
    fastest: int


def slowdown(points: Points) -> Slowdown | None:
    """The first such batch, from images/s by batch; None where there is none."""
    best, best_at = 0.0, 0
    for size, rate in points:
        if rate * SLOWER < best:
            return Slowdown(size, best / rate, best_at)
        if rate > best:
            best, best_at = rate, size
    return None
