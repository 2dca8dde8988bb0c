"""What a metric is, and one figure of it. The metrics themselves stand with their phases, in aggregate.analysis.phases."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FULL_TRAINING, WINDOW = "full training", "steady window"
"""What a figure of a training is of, at the beginning of its basis."""
NOT_RUN = "phase was not run"
"""How the reason ends where a phase is not in a result."""


@dataclass(frozen=True)
class Metric:
    """One figure: what it is called and how it is found.

    Attributes:
        key: name in the data frame.
        phase: the phase whose outcome it is derived from.
        title: as in the tables.
        unit: as in the tables; empty for counts and currencies.
        digits: significant digits shown; percentages have one decimal instead.
        definition: how it is found, for the reader of the report.
        merge: how repeats become one: their median, or their sum for what is counted.
        of_ranks: where several ranks share the work, what is known of rank 0 alone is marked so, and what would need
            the joules or the price of all of them is withheld; empty for what is known of all.
        warns: whether its notes are warnings; those of others only say what was measured.
    """

    key: str
    phase: str
    title: str
    unit: str
    digits: int
    definition: str
    merge: Literal["median", "sum"] = "median"
    of_ranks: Literal["", "rank 0", "withheld"] = ""
    warns: bool = False


@dataclass(frozen=True)
class Figure:
    """One metric of one repeat.

    Attributes:
        metric: its key.
        value: in the metric's unit; NaN where it could not be had.
        n: steps, samples or checks behind it.
        batch_size: the batch it holds for, where that is not the spec's.
        notes: what a reader must know beside the number.
        reason: why there is no value; empty where there is one.
        never: there is no value because it lies beyond all others: a time to what was not reached.
        unit: where it is not the metric's: a currency.
        basis: what it is of, where figures of this metric may be of different things: a full training or a window, one
            meter or another. Figures of different bases are neither merged nor compared.
        uncompared: why it is shown and compared with nothing; empty where nothing speaks against it.
        seed: what a full training was drawn from: two with the same one are a repeat of it, not two seeds.
    """

    metric: str
    value: float
    n: int
    batch_size: int | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""
    never: bool = False
    unit: str = ""
    basis: str = ""
    uncompared: str = ""
    seed: int | None = None

    @property
    def ranked(self) -> float:
        """Its value, in an order in which what never came is behind all others; NaN where there is none."""
        return math.inf if self.never else self.value


def absent(metric: str, reason: str, n: int = 0, *, batch_size: int | None = None, never: bool = False) -> Figure:
    """The figure of what could not be had."""
    return Figure(metric, math.nan, n, batch_size, reason=reason, never=never)


def all_absent(metrics: Sequence[str], reason: str, *, never: bool = False) -> Iterator[Figure]:
    """The figures of several metrics that could not be had, for the same reason."""
    return (absent(metric, reason, never=never) for metric in metrics)


def percentile(metric: str, samples: Sequence[float], q: int, unit: float = 1e3) -> Figure:
    """Percentile by linear interpolation; a tail needs 1 / (1 - q) samples, or it would be their maximum.

    Args:
        metric: its key.
        samples: seconds.
        q: 0 to 100.
        unit: of the figure in a second.
    """
    n, needed = len(samples), math.ceil(100 / (100 - q)) if q > 50 else 1
    if n < needed:
        return absent(metric, f"{n} samples are too few for a p{q}, which needs {needed}", n)
    return Figure(metric, unit * float(np.percentile(samples, q)), n)


def half_width(metric: str, interval: tuple[float, float] | None, centre: float, n: int) -> Figure:
    """Half the width of an interval, per cent of the centre; `interval` is None where there are too few values."""
    if interval is None:
        return absent(metric, f"{n:,} steps or samples are too few for an interval", n)
    return Figure(metric, 50 * (interval[1] - interval[0]) / centre, n)
