"""The interval of a ratio, on logarithms: Welch's, with variances that are shrunk towards those known beforehand.

A side has processes in runs. Its variances, between processes of a run and between runs, are estimated as in moderated t
tests (Smyth 2004): the prior's counts as if it had been measured with its weight in degrees of freedom. The four variances
of two sides are each multiplied by the square of their own Student quantile and added, which comes close to Behrens and
Fisher's interval and, unlike Satterthwaite's single number of degrees of freedom, never gets wider as a part gets smaller.

All functions take any leading dimensions, so that a simulation asks for all its draws at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from aggregate.analysis import prior
from aggregate.analysis.prior import Prior

LEVEL = 0.95
LEAST_P = 1e-12
"""No probability is told below this."""
HALVINGS = 32


@dataclass(frozen=True)
class Estimate:
    """The mean logarithm of one side.

    Attributes:
        centre: runs weighted by how well each is known.
        parts: (variance of the centre, degrees of freedom) between processes, and between runs.
    """

    centre: np.ndarray
    parts: tuple[tuple[np.ndarray, float], ...]


def estimate(runs: Sequence[np.ndarray], known: Prior, *, between_runs: bool = True) -> Estimate:
    """What a side's processes tell.

    Args:
        runs: logarithms [..., processes] of each run.
        known: the spreads known beforehand.
        between_runs: False where both sides are of one run, whose own deviation both share.
    """
    counts = np.array([run.shape[-1] for run in runs], float)
    means = np.stack([run.mean(-1) for run in runs], -1)
    squares = sum(((run - run.mean(-1, keepdims=True)) ** 2).sum(-1) for run in runs)
    of_processes, of_runs = prior.PROCESSES + counts.sum() - len(runs), prior.RUNS + len(runs) - 1
    process = (prior.PROCESSES * known.process**2 + squares) / of_processes
    apart = ((means - means.mean(-1, keepdims=True)) ** 2).sum(-1)
    run = (prior.RUNS * known.run**2 + apart) / of_runs if between_runs else np.zeros_like(process)
    a, b = quantile(of_processes, LEVEL) ** 2 * process, quantile(of_runs, LEVEL) ** 2 * run
    weights = 1 / (a[..., None] / counts + b[..., None])
    weights = weights / weights.sum(-1, keepdims=True)
    parts = (process * (weights**2 / counts).sum(-1), of_processes), (run * (weights**2).sum(-1), of_runs)
    return Estimate((weights * means).sum(-1), parts)


def quantile(freedom: float, level: float | np.ndarray) -> np.ndarray:
    """Two-sided Student quantile."""
    found: np.ndarray = -special.stdtrit(freedom, (1 - np.asarray(level)) / 2)
    return found


def half_width(a: Estimate, b: Estimate, level: float | np.ndarray = LEVEL) -> np.ndarray:
    """Half the width of the interval of the difference of two sides' means."""
    squares = [quantile(freedom, level) ** 2 * variance for side in (a, b) for variance, freedom in side.parts]
    found: np.ndarray = np.sqrt(sum(squares))
    return found


def p_value(a: Estimate, b: Estimate) -> np.ndarray:
    """Probability of a difference as large as this where there is none: 1 - the level at which the interval touches 0."""
    difference = np.abs(a.centre - b.centre)
    parts = [part for side in (a, b) for part in side.parts]
    variances, freedoms = np.stack([variance for variance, _ in parts], -1), np.array([freedom for _, freedom in parts])
    low, high = np.full_like(difference, np.log(LEAST_P)), np.zeros_like(difference)
    for _ in range(
        HALVINGS
    ):  # as half_width does, but all four quantiles in one call: a report asks thousands of times
        middle = (low + high) / 2
        quantiles = special.stdtrit(freedoms, np.exp(middle)[..., None] / 2)
        wider = (quantiles**2 * variances).sum(-1) > difference**2
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    found: np.ndarray = np.exp(high)
    return found


def holm(probabilities: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number (Holm 1979), each in its place: any below 0.05 is one, with 95 % certainty."""
    order = sorted(range(len(probabilities)), key=lambda i: probabilities[i])
    corrected, so_far = [0.0] * len(probabilities), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * probabilities[i]))
        corrected[i] = so_far
    return corrected
