"""How sure a figure is, derived from raw samples: spread, drift, intervals, and a verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared_spec.workload.spec import MeasuringSpec

Blocks = Sequence[Sequence[float]]
"""Rows of [steps, seconds]."""

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t for 1 to 10 degrees of freedom; the last serves for more, which errs on the wide side."""
MIN_BOOTSTRAP = 10
"""Below so many values a bootstrap interval is too narrow (at five it holds the truth some 84 times in 100)."""


def step_rate(blocks: Blocks) -> float:
    """Steps per second over all the blocks: all steps by all seconds, never a mean of rates."""
    return math.fsum(steps for steps, _ in blocks) / math.fsum(seconds for _, seconds in blocks)


def drift(blocks: Blocks) -> float | None:
    """Change of the time a step takes from the first third of the blocks to the last; None for fewer than three."""
    third = len(blocks) // 3
    return step_rate(blocks[:third]) / step_rate(blocks[-third:]) - 1 if third else None


def variation(blocks: Blocks) -> float | None:
    """Coefficient of variation of the blocks' step times; None for fewer than three."""
    if len(blocks) < 3:
        return None
    times = np.array([seconds / steps for steps, seconds in blocks])
    with np.errstate(all="ignore"):  # a file may hold times too short to divide by: not finite, then
        return float(times.std(ddof=1) / times.mean())


def window_interval(blocks: Blocks) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval (Efron 1979) of the rate over a window; None for fewer than MIN_BOOTSTRAP blocks.

    It knows what happens within one process; what differs between processes only repeats can tell.
    """
    if len(blocks) < MIN_BOOTSTRAP:
        return None
    rows = np.array(blocks, np.float64)
    drawn = rows[np.random.default_rng(0).integers(0, len(rows), (2000, len(rows)))].sum(1)
    with np.errstate(all="ignore"):
        low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def quantile_interval(samples: Sequence[float], q: float) -> tuple[float, float] | None:
    """95 % interval of a quantile by order statistics, without assuming a distribution (Conover 1999, section 3.2).

    Args:
        q: 0.5 for the median.

    Returns:
        None where there are too few samples for one: fewer than 8 for the median, than 53 for a p90.
    """
    n = len(samples)
    half = 1.96 * math.sqrt(n * q * (1 - q))
    low, high = math.floor(n * q - half), math.ceil(n * q + half) + 1
    if low < 1 or high > n:
        return None
    ordered = np.partition(np.array(samples), (low - 1, high - 1))
    return float(ordered[low - 1]), float(ordered[high - 1])


def student_975(freedom: int) -> float:
    """97.5 % quantile of Student's t for one degree of freedom or more."""
    return T_975[min(freedom, len(T_975)) - 1]


def half_interval(figures: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of two figures or more: Student's t, for they are few."""
    n = len(figures)
    return float(student_975(n - 1) * np.std(figures, ddof=1) / math.sqrt(n))


def interval_width(figures: Sequence[float]) -> float:
    """Width of the 95 % interval of the mean of repeats, as a fraction of the mean."""
    return 2 * half_interval(figures) / float(np.mean(figures))


@dataclass(frozen=True)
class Stability:
    """How steady a window was.

    Attributes:
        steady: whether the warm-up had ended because step times agreed.
        drift, variation: as the functions of these names say.
        rules: what counts as too much.
    """

    steady: bool
    drift: float | None
    variation: float | None
    rules: MeasuringSpec

    @property
    def objections(self) -> tuple[str, ...]:
        """What a reader must know; empty where the window was stable."""
        objections = []
        if not self.steady:
            objections.append("step times had not become steady when the window began")
        if self.drift is not None and abs(self.drift) > self.rules.drift_tolerance:
            objections.append(f"step times drifted over the window by {self.drift:+.1%}")
        if self.variation is not None and self.variation > self.rules.steady_tolerance:
            objections.append(f"step times were uneven: their coefficient of variation is {self.variation:.1%}")
        return tuple(objections)


def of_window(blocks: Blocks, steady: bool, rules: MeasuringSpec) -> Stability:
    """The stability of a window that a warm-up went before."""
    return Stability(steady, drift(blocks), variation(blocks), rules)
