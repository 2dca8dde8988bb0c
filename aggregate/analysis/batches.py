"""Inference at batch sizes that all of some runs were asked to try: a quick run ends at a smaller one than a full run."""

from collections.abc import Sequence

from aggregate.analysis.merging import Run
from shared_spec.results.measurements import Inference


def largest_asked(run: Run) -> int:
    """Largest inference batch that a run's profiles ask for, whether or not the machine came so far."""
    return max(result.content.profile.content.inference_max_batch for result in run.results)


def common_limit(runs: Sequence[Run]) -> int:
    """Largest inference batch that all of the runs were asked to try."""
    return min(map(largest_asked, runs))


def best_up_to(run: Run, limit: int) -> list[list[tuple[float, int]]]:
    """(images/s, batch) of the fastest batch up to `limit`, of every process of every result; none where none is so small."""
    each = []
    for result in run.results:
        tried = [[size for size in m.sizes if size.batch_size <= limit] for m in result.measured(Inference)]
        each.append([max((size.images_per_second, size.batch_size) for size in sizes) for sizes in tried if sizes])
    return each
