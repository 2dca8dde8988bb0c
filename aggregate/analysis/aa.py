"""The A/A test: the same thing against itself, where every verdict is a false one.

The same thing is what the report shows as one run: the same framework and version, engine, precision, device, data and
workload, not always of one commit. Within a result the processes are of one commit by nature.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aggregate.analysis import ratios, welch
from aggregate.analysis.merging import Run
from aggregate.analysis.prior import Prior, class_of, prior_of
from aggregate.analysis.ratios import FASTER_IS
from aggregate.analysis.welch import Estimate

ALLOWED = 0.05
"""False verdicts, of all pairs."""
MAX_SPLITS = 1000
"""Ways to set some processes of a result against others that are looked at; of more, so many drawn at random."""
LEVELS = ("one process each", "several processes each", "runs")


class Pair(NamedTuple):
    """Two measurements of the same thing.

    Attributes:
        judged: whether the method gives a verdict at all: not with one process on a side.
        apart: whether the interval leaves 1 out, be there a verdict or not.
        same_commit: whether both are of one commit.
    """

    judged: bool
    apart: bool
    same_commit: bool


@dataclass(frozen=True)
class Row:
    """The pairs of one kind.

    Attributes:
        level: one of LEVELS.
        metric: key of the metric.
        kind: class of the platform.
        pairs: all of them.
    """

    level: str
    metric: str
    kind: str
    pairs: tuple[Pair, ...]

    @property
    def judged(self) -> int:
        """Pairs with a verdict: faster, slower or too close to call."""
        return sum(pair.judged for pair in self.pairs)

    @property
    def false(self) -> int:
        """Pairs called faster or slower."""
        return sum(pair.judged and pair.apart for pair in self.pairs)

    @property
    def apart(self) -> int:
        """Pairs whose interval leaves 1 out, those without a verdict included."""
        return sum(pair.apart for pair in self.pairs)


@dataclass(frozen=True)
class Spread:
    """Measured standard deviations of logarithms.

    Attributes:
        metric: key of the metric.
        kind: class of the platform.
        process: between processes of a result, pooled; NaN where no result has two.
        process_freedom: its degrees of freedom.
        run: between results of the same thing, what processes explain taken off; NaN where none has two.
        run_freedom: its degrees of freedom.
    """

    metric: str
    kind: str
    process: float
    process_freedom: int
    run: float
    run_freedom: int


class _Group(NamedTuple):
    """Logarithms of one metric of the same thing, by result, and the commits of these."""

    metric: str
    kind: str
    known: Prior
    results: list[np.ndarray]
    commits: list[str | None]


def _groups(runs: Sequence[Run]) -> Iterator[_Group]:
    """Of every run and metric, each result by itself."""
    for run, metric in itertools.product(runs, FASTER_IS):
        kind = class_of(run)
        each = [ratios.processes(Run(run.letter, (result,), run.prices), metric) for result in run.results]
        found = [
            (logs[0], result.content.software.git_commit)
            for logs, result in zip(each, run.results, strict=True)
            if logs
        ]
        if found:
            of_results, commits = (list(column) for column in zip(*found, strict=True))
            yield _Group(metric, kind, prior_of(kind, metric), of_results, commits)


def test(runs: Sequence[Run]) -> list[Row]:
    """All pairs of processes, of several processes of a result, and of results, of the same thing."""
    pairs: defaultdict[tuple[str, str, str], list[Pair]] = defaultdict(list)
    for group in _groups(runs):
        for logs in group.results:
            pairs[LEVELS[0], group.metric, group.kind] += _of_processes(logs, group.known)
            pairs[LEVELS[1], group.metric, group.kind] += _of_several(logs, group.known)
        pairs[LEVELS[2], group.metric, group.kind] += _of_results(group)
    rows = [Row(*key, tuple(found)) for key, found in pairs.items() if found]
    metrics = list(FASTER_IS)
    return sorted(rows, key=lambda row: (LEVELS.index(row.level), metrics.index(row.metric), row.kind))


def passes(rows: Sequence[Row]) -> bool:
    """Whether no level has more false verdicts than ALLOWED, of all its pairs with a verdict."""
    by_level = [[row for row in rows if row.level == level] for level in LEVELS]
    return all(sum(r.false for r in each) <= ALLOWED * sum(r.judged for r in each) for each in by_level)


def _apart(a: Estimate, b: Estimate) -> np.ndarray:
    apart: np.ndarray = np.abs(a.centre - b.centre) > welch.half_width(a, b)
    return apart


def _of_processes(logs: np.ndarray, known: Prior) -> list[Pair]:
    """Each against each, as the spread known beforehand alone would have it."""
    if len(logs) < 2:
        return []
    first, second = np.triu_indices(len(logs), 1)
    a, b = (welch.estimate([logs[side, None]], known, between_runs=False) for side in (first, second))
    return [Pair(judged=False, apart=bool(apart), same_commit=True) for apart in _apart(a, b)]


def _of_several(logs: np.ndarray, known: Prior) -> list[Pair]:
    """Two, three ... processes of a result against as many others of it, in all ways."""
    pairs = []
    for size in range(2, len(logs) // 2 + 1):
        a, b = (logs[side] for side in splits(len(logs), size))
        one, other = (welch.estimate([side], known, between_runs=False) for side in (a, b))
        pairs += [Pair(judged=True, apart=bool(apart), same_commit=True) for apart in _apart(one, other)]
    return pairs


def splits(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [ways, size] of two disjoint sets of `size` out of n: each way once, or MAX_SPLITS at random of more."""
    if math.comb(n, 2 * size) * math.comb(2 * size, size) // 2 > MAX_SPLITS:
        rng = np.random.default_rng(0)
        drawn = np.stack([rng.permutation(n) for _ in range(MAX_SPLITS)])
        return drawn[:, :size], drawn[:, size : 2 * size]
    ways = [way for both in itertools.combinations(range(n), 2 * size) for way in _halves(both)]
    first, second = zip(*ways, strict=True)
    return np.array(first), np.array(second)


def _halves(both: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each way to halve a set; the half with its first member comes first."""
    for rest in itertools.combinations(both[1:], len(both) // 2 - 1):
        half = (both[0], *rest)
        yield half, tuple(i for i in both if i not in half)


def _of_results(group: _Group) -> list[Pair]:
    pairs = []
    for i, j in itertools.combinations(range(len(group.results)), 2):
        a, b = (welch.estimate([group.results[k]], group.known) for k in (i, j))
        judged = min(len(group.results[i]), len(group.results[j])) > 1
        same_commit = group.commits[i] is not None and group.commits[i] == group.commits[j]
        pairs.append(Pair(judged, bool(_apart(a, b)), same_commit))
    return pairs


def spreads(runs: Sequence[Run]) -> list[Spread]:
    """What the results say of the spreads that aggregate.analysis.prior holds; settings pooled."""
    found: defaultdict[tuple[str, str], list[_Group]] = defaultdict(list)
    for group in _groups(runs):
        found[group.metric, group.kind].append(group)
    measured = [_spread(metric, kind, groups) for (metric, kind), groups in found.items()]
    return [spread for spread in measured if spread.process_freedom or spread.run_freedom]


def _spread(metric: str, kind: str, groups: Sequence[_Group]) -> Spread:
    several = [logs for group in groups for logs in group.results if len(logs) > 1]
    freedom = sum(len(logs) - 1 for logs in several)
    process = np.sqrt(sum(((logs - logs.mean()) ** 2).sum() for logs in several) / freedom) if freedom else np.nan
    of_runs = [group for group in groups if len(group.results) > 1]
    run_freedom = sum(len(group.results) - 1 for group in of_runs)
    explained = process if freedom else prior_of(kind, metric).process
    squares = 0.0
    for group in of_runs:
        means, shares = [logs.mean() for logs in group.results], [1 / len(logs) for logs in group.results]
        squares += (len(means) - 1) * (np.var(means, ddof=1) - explained**2 * np.mean(shares))
    run = np.sqrt(max(0.0, squares / run_freedom)) if run_freedom else np.nan
    return Spread(metric, kind, float(process), freedom, float(run), run_freedom)
