"""Loss divergence: how far the losses of two runs are apart that should be the same numbers but for rounding."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregate.analysis.merging import Run
from shared_spec.results.format import TrainingDone

MAX_TRACED = 40
"""Runs of a section whose loss traces are laid over each other in pairs: 780 of them."""


@dataclass(frozen=True)
class TraceKey:
    """What two training runs must share for their losses to be the same numbers but for rounding."""

    data: tuple[str, ...]
    initial_params: str
    batch_size: int
    seed: int


Traces = dict[TraceKey, dict[str, np.ndarray]]
"""Losses of the first steps, float64 [steps] with NaN where not finite, by run letter."""


@dataclass(frozen=True)
class Divergence:
    """How far the losses of two runs are apart at most.

    Attributes:
        first: one run.
        second: the other.
        seeds: seeds that both trained with.
        steps: common steps where both are finite, over all common seeds.
        relative: largest |a - b| / max(|a|, |b|); NaN where no step is common.
        seed: where that is.
        step: where that is, counted from 1.
        unequal: common steps where only one of the two is finite.
    """

    first: Run
    second: Run
    seeds: int
    steps: int
    relative: float
    seed: int
    step: int
    unequal: int

    @property
    def precisions(self) -> list[str]:
        """Of the two runs, each once: ["fp32"], or ["fp32", "bf16"]."""
        return sorted({run.content.precision for run in (self.first, self.second)}, reverse=True)

    @property
    def width(self) -> float:
        """To sort by: two traces of which only one is finite somewhere are infinitely far apart."""
        return np.inf if self.unequal or np.isnan(self.relative) else self.relative


def traces(members: Sequence[Run]) -> Traces:
    """The loss traces of runs of one workload, those that may be laid over each other together."""
    by_key: defaultdict[TraceKey, dict[str, np.ndarray]] = defaultdict(dict)
    for letter, result in ((run.letter, result) for run in members for result in run.results):
        data, initial = result.content.data, result.content.initial_params.fingerprint
        checksums = (data.source, *sorted(f"{name}={value}" for name, value in data.checksums.items()))
        for outcome in result.content.phases:
            if isinstance(outcome, TrainingDone) and (trace := outcome.measurements.loss_trace):
                key = TraceKey(checksums, initial, outcome.measurements.batch_size, outcome.seed)
                by_key[key].setdefault(letter, np.array(trace, dtype=float))
    return dict(by_key)


def one_seed_each(all_traces: Traces) -> Traces:
    """Of the seeds of the same data, initial values and batch, the one that most runs share; the lowest of several."""
    chosen: dict[tuple[object, ...], TraceKey] = {}
    for key in sorted(all_traces, key=lambda key: (-len(all_traces[key]), key.seed)):
        chosen.setdefault((key.data, key.initial_params, key.batch_size), key)
    return {key: all_traces[key] for key in chosen.values()}


def relative_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b| / max(|a|, |b|) over the common length, 0 where both are 0, NaN where one is."""
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    scale = np.maximum(np.abs(a), np.abs(b))
    difference: np.ndarray = np.abs(a - b) / np.where(scale == 0, 1, scale)
    return difference


def divergences(members: Sequence[Run], siblings: Sequence[Run] = ()) -> list[Divergence]:
    """Every two runs with a comparable trace: of `members`, then each of these with each of `siblings`.

    Of either only the first MAX_TRACED that have a trace are looked at.
    """
    by_seed = traces([*members, *siblings])
    traced = {letter for of_run in by_seed.values() for letter in of_run}
    mine = [run for run in members if run.letter in traced][:MAX_TRACED]
    theirs = [run for run in siblings if run.letter in traced][:MAX_TRACED]
    pairs = []
    for a, b in (*itertools.combinations(mine, 2), *itertools.product(theirs, mine)):
        common = {
            key.seed: (t[a.letter], t[b.letter]) for key, t in by_seed.items() if {a.letter, b.letter} <= t.keys()
        }
        if common:
            pairs.append(_divergence(a, b, common))
    return pairs


def _divergence(a: Run, b: Run, common: dict[int, tuple[np.ndarray, np.ndarray]]) -> Divergence:
    relative, seed, step, steps, unequal = np.nan, min(common), 0, 0, 0
    for this_seed, (x, y) in common.items():
        difference = relative_difference(x, y)
        finite, n = np.isfinite(difference), len(difference)
        steps += int(finite.sum())
        unequal += int((np.isfinite(x[:n]) != np.isfinite(y[:n])).sum())
        if finite.any() and not np.nanmax(difference) <= relative:
            relative, seed, step = float(np.nanmax(difference)), this_seed, int(np.nanargmax(difference)) + 1
    return Divergence(a, b, len(common), steps, relative, seed, step, unequal)
