"""Comparisons drawn by chance with known spreads: how often the verdicts are right.

Each draw has its own true spreads, as uncertain as the prior says they are, the same for both sides. A process's figure is
its own deviation plus the mean of a series of parts that hang together from one to the next (an autoregression of first
order), as its window does; a run has a deviation of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import signal

from aggregate.analysis import prior, welch
from aggregate.analysis.prior import Parts, Prior
from aggregate.analysis.welch import Estimate

PARTS = 20
"""Parts that a process's series is cut into."""


class Layout(NamedTuple):
    """How much each side measured."""

    runs: int
    processes: int


LAYOUTS = (*(Layout(1, n) for n in (1, 2, 3, 5, 8)), Layout(3, 3))
RATIOS = (1.05, 1.10, 1.5)
"""True ratios to be found."""


@dataclass(frozen=True)
class Row:
    """What the verdicts on one metric came to.

    Attributes:
        kind: class of the platform.
        metric: key of the metric.
        layout: of either side.
        coverage: share of the 95 % intervals that hold the true ratio; NaN with one process a side, which has none.
        false: share of verdicts "faster" or "slower" where there is no difference.
        power: share of draws in which each of RATIOS is called faster.
        fixed: the coverage where the true spreads are exactly those of the prior.
    """

    kind: str
    metric: str
    layout: Layout
    coverage: float
    false: float
    power: tuple[float, ...]
    fixed: float


def simulate(draws: int, seed: int = 0, spread: float = 1.0) -> Iterator[Row]:
    """Every metric and class of the prior in every layout, each from so many draws.

    Args:
        draws: comparisons of each.
        seed: of their random numbers.
        spread: the true spreads are so many times what the method takes them for.
    """
    rng = np.random.default_rng(seed)
    for (kind, metric), known in prior.TABLE.items():
        for layout in LAYOUTS:
            yield _row(rng, kind, metric, _Case(known, layout, spread), draws)


def passes(rows: Sequence[Row], draws: int) -> bool:
    """Whether 93 to 97 % of the intervals hold the truth and at most 5 % of the verdicts are false.

    Either for each layout over all metrics and classes, chance of so many draws allowed for by three standard errors;
    and no single row holds the truth less than 93 times in 100.
    """
    error = 3 * np.sqrt(0.05 * 0.95 / draws)
    by_layout = [[row for row in rows if row.layout == layout and row.layout != Layout(1, 1)] for layout in LAYOUTS]
    for each in filter(None, by_layout):
        coverage, chance = np.array([row.coverage for row in each]), error / np.sqrt(len(each))
        if coverage.min() < 0.93 - error or not 0.95 - chance <= coverage.mean() <= 0.97 + chance:
            return False
    return True


class _Case(NamedTuple):
    known: Prior
    layout: Layout
    spread: float


def _row(rng: np.random.Generator, kind: str, metric: str, case: _Case, draws: int) -> Row:
    layout = case.layout
    if layout.runs * layout.processes < 2:
        return Row(kind, metric, layout, np.nan, 0.0, (0.0,) * len(RATIOS), np.nan)
    difference, half = _draw(rng, case, draws, fixed=False)
    fixed, fixed_half = _draw(rng, case, draws, fixed=True)
    power = tuple(float(np.mean(difference + np.log(true) > half)) for true in RATIOS)
    held = float(np.mean(np.abs(difference) <= half))
    return Row(kind, metric, layout, held, 1 - held, power, float(np.mean(np.abs(fixed) <= fixed_half)))


def _draw(rng: np.random.Generator, case: _Case, draws: int, *, fixed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Differences of the sides' logarithms, and half the widths of their intervals."""
    known, layout, spread = case
    process, run = (spread * sd * np.ones(draws) for sd in (known.process, known.run))
    if not fixed:
        process *= np.sqrt(prior.PROCESSES / rng.chisquare(prior.PROCESSES, draws))
        run *= np.sqrt(prior.RUNS / rng.chisquare(prior.RUNS, draws))
    a, b = (_side(rng, known, layout, process, run) for _ in range(2))
    return a.centre - b.centre, welch.half_width(a, b)


def _side(rng: np.random.Generator, known: Prior, layout: Layout, process: np.ndarray, run: np.ndarray) -> Estimate:
    """One side of every draw, as the method sees it."""
    runs = [
        rng.normal(0, run)[:, None] + processes(rng, known.parts, process, layout.processes) for _ in range(layout.runs)
    ]
    return welch.estimate(runs, known)


def processes(rng: np.random.Generator, parts: Parts | None, sd: np.ndarray, count: int) -> np.ndarray:
    """Logarithms [draws, count] of processes whose spread is `sd` [draws], their own series included.

    Where the series alone would vary more than that, it is all there is.
    """
    if parts is None:
        alone: np.ndarray = rng.normal(0, 1, (len(sd), count)) * sd[:, None]
        return alone
    of_series = np.minimum(sd, parts.sd * np.sqrt(variance_of_mean(parts.lag)))
    own = np.sqrt(np.maximum(0, sd**2 - of_series**2))
    series = autoregression(rng, parts.lag, (len(sd), count)).mean(-1) / np.sqrt(variance_of_mean(parts.lag))
    drawn: np.ndarray = rng.normal(0, 1, (len(sd), count)) * own[:, None] + series * of_series[:, None]
    return drawn


def autoregression(rng: np.random.Generator, lag: float, shape: tuple[int, ...]) -> np.ndarray:
    """Series [..., PARTS] of variance 1 whose neighbours correlate by `lag`."""
    noise = rng.normal(0, 1, (*shape, PARTS)) * np.sqrt(1 - lag**2)
    noise[..., 0] /= np.sqrt(1 - lag**2)
    series: np.ndarray = signal.lfilter([1], [1, -lag], noise)
    return series


def variance_of_mean(lag: float) -> float:
    """Of PARTS values of variance 1, of which those k apart correlate by lag**k."""
    k = np.arange(1, PARTS)
    return float((1 + 2 * np.sum((1 - k / PARTS) * lag**k)) / PARTS)
