"""How training gets faster with the number of processes that share it, one a device."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aggregate.analysis import ratios
from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from shared_spec.results.measurements import RanksTraining, Training
from shared_spec.results.stability import step_rate

DEFINITION = (
    "images/s of N ranks / (N * images/s of one process alone on the same device), with the 95 % interval of that "
    "ratio; strong: the workload's batch is shared, weak: every rank has a batch of that size"
)
"""For the reader of the report."""


@dataclass(frozen=True)
class Point:
    """Some ranks against one process.

    Attributes:
        run: the ranks.
        speedup: of their training throughput, with its interval; NaN where there is none.
    """

    run: Run
    speedup: Ratio

    @property
    def efficiency(self) -> tuple[float, float, float]:
        """Speed-up by the number of ranks, and the ends of its interval."""
        n, s = self.run.ranks.size, self.speedup
        return s.ratio / n, s.low / n, s.high / n

    @property
    def global_batch(self) -> float | None:
        """Images a step, of all ranks together; None where nothing was trained."""
        return _median([measured.batch_size for measured in self.run.measured(Training)])

    @property
    def slowest_rank(self) -> float | None:
        """How much longer the slowest rank's steps took than the fastest one's, %, in the median repeat."""
        windows = [ranks.rank_window_blocks for ranks in self._of_ranks]
        rates = [[step_rate(blocks) for blocks in of_ranks] for of_ranks in windows]
        return _median([100 * (max(each) / min(each) - 1) for each in rates])

    @property
    def communication_seconds(self) -> float | None:
        """Of a step, in the median repeat; None where the engine does not tell."""
        return _median([ranks.communication_seconds for ranks in self._of_ranks])

    @property
    def overlapped_seconds(self) -> float | None:
        """Of it behind the backward pass; None where the engine does not tell."""
        return _median([ranks.overlapped_seconds for ranks in self._of_ranks])

    @property
    def _of_ranks(self) -> list[RanksTraining]:
        """What the ranks saw, in each repeat."""
        return [measured.parallel for measured in self.run.measured(Training) if measured.parallel]

    @property
    def shared_cores(self) -> float | None:
        """Where several ranks divide one processor, the efficiency in % that is all there is to have; else None.

        More such ranks are no more hardware.
        """
        hosts = self.run.content.parallel.hosts if self.run.content.parallel else None
        if self.run.hardware.kind != "cpu" or not hosts or hosts >= self.run.ranks.size:
            return None
        return float(100 * hosts / self.run.ranks.size)


def _median(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class Scaling:
    """The same thing on one device and on several.

    Attributes:
        alone: on one.
        kind: strong or weak.
        points: in the order of the number of ranks.
    """

    alone: Run
    kind: str
    points: tuple[Point, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those of several ranks."""
        return tuple(point.run for point in self.points)


def scalings(runs: Sequence[Run]) -> list[Scaling]:
    """What was trained by several ranks and, for comparison, by one process too; runs of one section."""
    alone = {_thing(run): run for run in runs if run.ranks.size == 1}
    together: defaultdict[tuple[tuple[str, ...], str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.ranks.size > 1 and _thing(run) in alone:
            together[_thing(run), run.ranks.scaling, run.ranks.engine].append(run)
    return [_scaling(alone[thing], kind, members) for (thing, kind, _), members in together.items()]


def _scaling(alone: Run, kind: str, members: Sequence[Run]) -> Scaling:
    ordered = sorted(members, key=lambda run: run.ranks.size)
    return Scaling(
        alone, kind, tuple(Point(run, ratios.ratio(run, alone, "training_throughput")) for run in ordered)
    )  # fmt: skip


def _thing(run: Run) -> tuple[str, ...]:
    """What a run on one device and one on several must share."""
    i = run.identity
    return i["platform"], i["engine"], i["framework"], run.hardware.short, i["data"], i["effective_precision"]
