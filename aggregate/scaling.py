"""How training gets faster with the number of processes that share it, one a device."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aggregate import ratios
from aggregate.compare import Run
from aggregate.metrics import step_rate
from aggregate.ratios import Ratio
from aggregate.tables import MISSING, Cell, Row, Table, heading, number

DEFINITION = (
    "images/s of N ranks / (N * images/s of one process alone on the same device), with the 95 % interval of that "
    "ratio; strong: the workload's batch is shared, weak: every rank has a batch of that size"
)
"""For the reader of the report."""


@dataclass(frozen=True)
class Point:
    """Some ranks against one process.

    Attributes:
        speedup: of their training throughput, with its interval; NaN where there is none.
    """

    run: Run
    speedup: Ratio

    @property
    def efficiency(self) -> tuple[float, float, float]:
        """Speed-up by the number of ranks, and the ends of its interval."""
        n, s = self.run.ranks.size, self.speedup
        return s.ratio / n, s.low / n, s.high / n


@dataclass(frozen=True)
class Scaling:
    """The same thing on one device and on several.

    Attributes:
        kind: strong or weak.
        points: in the order of the number of ranks.
    """

    alone: Run
    kind: str
    points: tuple[Point, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(point.run for point in self.points)


def scalings(runs: Sequence[Run]) -> list[Scaling]:
    """What was trained by several ranks and, for comparison, by one process too; runs of one section."""
    alone = {_thing(run): run for run in runs if run.ranks.size == 1}
    together: defaultdict[tuple[tuple[str, ...], str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.ranks.size > 1 and _thing(run) in alone:
            together[_thing(run), run.ranks.scaling, run.ranks.engine].append(run)
    found = []
    for (thing, kind, _), members in together.items():
        one = alone[thing]
        ordered = sorted(members, key=lambda run: run.ranks.size)
        found.append(
            Scaling(one, kind, tuple(Point(run, ratios.ratio(run, one, "training_throughput")) for run in ordered))
        )
    return found


def _thing(run: Run) -> tuple[str, ...]:
    """What a run on one device and one on several must share."""
    i = run.identity
    return i["platform"], i["engine"], i["framework"], run.hardware.short, i["data"], i["effective_precision"]


def table(scaling: Scaling) -> Table:
    """Throughput, speed-up and efficiency, and what the ranks cost one another."""
    title = f"{scaling.kind.capitalize()} scaling against {scaling.alone.letter}, one process"
    made = Table(title, "", scaling.runs)
    made.headers = [(Cell(run.letter), heading(run)) for run in scaling.runs]
    rows = {
        "Ranks": ("", [Cell(f"{run.ranks.size:,}") for run in scaling.runs]),
        "Connected by": ("", [Cell(run.ranks.how or MISSING) for run in scaling.runs]),
        "Global batch": ("images", [_median(run, "batch_size") for run in scaling.runs]),
        "Speed-up": ("x", [_speedup(made, point) for point in scaling.points]),
        "Scaling efficiency": ("%", [_efficiency(made, point) for point in scaling.points]),
        "Slowest rank against the fastest": ("%", [_unequal(run) for run in scaling.runs]),
        "Communication a step": ("ms", [_told(made, run, "communication_seconds") for run in scaling.runs]),
        "  behind the backward pass": ("ms", [_told(made, run, "overlapped_seconds") for run in scaling.runs]),
    }
    made.rows = [Row(label, unit, tuple(cells), starts=label == "Ranks") for label, (unit, cells) in rows.items()]
    return made


def _median(run: Run, name: str) -> Cell:
    values = [measured[name] for measured in run.measured("training")]
    return Cell(f"{statistics.median(values):,.0f}" if values else MISSING)


def _speedup(made: Table, point: Point) -> Cell:
    s = point.speedup
    if s.ratio != s.ratio:
        return made.cell(MISSING, (s.reason,))
    return made.cell(number(s.ratio, 3), (s.method or s.reason,))


def _efficiency(made: Table, point: Point) -> Cell:
    middle, low, high = (100 * value for value in point.efficiency)
    if middle != middle:
        return made.cell(MISSING, (point.speedup.reason,))
    text = f"{middle:.1f}" + (f" ({low:.1f} to {high:.1f})" if low == low else "")
    return made.cell(text, shared_cores(point.run))


def shared_cores(run: Run) -> tuple[str, ...]:
    """Said where several ranks divide one processor: more of them are no more hardware."""
    parallel = run.content["parallel"]
    if run.hardware.kind != "cpu" or not parallel["hosts"] or parallel["hosts"] >= run.ranks.size:
        return ()
    share = f"{100 * parallel['hosts'] / run.ranks.size:.3g} %"
    return (f"ranks on one machine share its cores, so that {share} is all there is to have",)


def _unequal(run: Run) -> Cell:
    """How much longer the slowest rank's steps took than the fastest one's, in the median repeat."""
    each = []
    for measured in run.measured("training"):
        rates = [step_rate(blocks) for blocks in measured["parallel"]["rank_window_blocks"]]
        each.append(100 * (max(rates) / min(rates) - 1))
    return Cell(f"{statistics.median(each):.1f}" if each else MISSING)


def _told(made: Table, run: Run, name: str) -> Cell:
    values = [measured["parallel"][name] for measured in run.measured("training")]
    known = [value for value in values if value is not None]
    return (
        Cell(number(1e3 * statistics.median(known), 3)) if known else made.cell(MISSING, ("the engine does not tell",))
    )
