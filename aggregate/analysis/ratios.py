"""How many times as fast as a baseline: with an interval, and a verdict only where the interval allows one.

What is independent is a process, above it a run: the parts of one process never make an interval. The interval is
aggregate.analysis.welch's, on logarithms; with one process on a side there is a ratio and no verdict. All verdicts of a
table are corrected for their number.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregate.analysis import welch
from aggregate.analysis.merging import Run
from aggregate.analysis.metrics import FULL_TRAINING, WINDOW
from aggregate.analysis.prior import class_of, prior_of

FASTER_IS = {
    "training_throughput": +1,
    "latency_median": -1,
    "latency_p90": -1,
    "inference_reference": +1,
    "full_throughput": +1,
    "target_crossing": -1,
}
"""Metrics of speed: +1 where more is faster, -1 where less is."""
HEADLINE, OF_HEADLINE = "headline_throughput", {True: "full_throughput", False: "training_throughput"}
EVALUATED = ("full_throughput", "target_crossing")
"""Metrics that evaluations take part of the time of."""
DEFINITION = (
    "Ratio of the geometric means of the processes, above 1 where the run is faster than its baseline. The 95 % interval "
    "is Welch's t on logarithms with two variances, between processes and between runs (machines, days), each shrunk "
    "towards one measured beforehand for the metric and the kind of platform; faster and slower are said where the "
    "difference remains significant at 5 % after Holm's correction over the table, and never with one process on a side."
)
"""For the reader of the report."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline a run is by one metric.

    Attributes:
        baseline: its letter.
        metric: its key.
        ratio: above 1 is faster; NaN where there is none.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end of it.
        p: probability of a ratio so far from 1 where there is no difference; in a table corrected for the number of its
            verdicts; NaN where there is none.
        method: how the interval was found.
        verdict: "faster", "slower" or "too close to call"; empty where there is none.
        reason: why there is no ratio or no verdict.
    """

    baseline: str
    metric: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    method: str = ""
    verdict: str = ""
    reason: str = ""


def ratios(runs: Sequence[Run], baseline: Run) -> dict[tuple[str, str], Ratio]:
    """Ratios of all other runs, which must be of the baseline's section, by letter and metric."""
    others = [run for run in runs if run is not baseline]
    table = corrected({(run.letter, metric): ratio(run, baseline, metric) for run in others for metric in FASTER_IS})
    return table | {(run.letter, HEADLINE): _headline(run, baseline, table) for run in others}


def _headline(run: Run, baseline: Run, table: dict[tuple[str, str], Ratio]) -> Ratio:
    """The ratio of full trainings, or of windows where neither has one: the verdict is that one's, not a second."""
    full = [any(f.basis == FULL_TRAINING for f in one.repeats(HEADLINE)) for one in (run, baseline)]
    if full[0] != full[1]:
        return Ratio(baseline.letter, HEADLINE, reason=f"a {FULL_TRAINING} and a {WINDOW} do not compare")
    return dataclasses.replace(table[run.letter, OF_HEADLINE[full[0]]], metric=HEADLINE)


def corrected(table: dict[tuple[str, str], Ratio]) -> dict[tuple[str, str], Ratio]:
    """The ratios of a table, their verdicts corrected for their number."""
    judged = {key: ratio for key, ratio in table.items() if not math.isnan(ratio.p)}
    changed = {}
    for (key, one), p in zip(judged.items(), welch.holm([ratio.p for ratio in judged.values()]), strict=True):
        said, method = verdict(one.ratio, p), one.method
        if len(judged) > 1:
            method += f"; one of {len(judged)} verdicts" + ", and chance alone makes one such of so many" * (
                said != one.verdict
            )
        changed[key] = dataclasses.replace(one, p=p, verdict=said, method=method)
    return table | changed


def ratio(run: Run, baseline: Run, metric: str) -> Ratio:
    """How many times as fast as `baseline` a run is, by itself: not corrected for what else is asked."""
    if reason := _incomparable(run, baseline, metric):
        return Ratio(baseline.letter, metric, reason=reason)
    sides = [processes(one, metric) for one in (run, baseline)]
    a, b = (
        welch.estimate(logs, prior_of(class_of(one), metric)) for logs, one in zip(sides, (run, baseline), strict=True)
    )
    centre = _exp(a.centre - b.centre)
    counts = [sum(map(len, side)) for side in sides]
    if min(counts) < 2:
        whose = "each" if max(counts) < 2 else "on one side"
        return Ratio(baseline.letter, metric, centre, reason=f"one process {whose}: no verdict")
    half, p = welch.half_width(a, b), float(welch.p_value(a, b))
    low, high = _exp(a.centre - b.centre - half), _exp(a.centre - b.centre + half)
    of_runs = [len(side) for side in sides]
    method = f"{counts[0]} and {counts[1]} processes in {of_runs[0]} and {of_runs[1]} run{'s' * (max(of_runs) > 1)}"
    return Ratio(baseline.letter, metric, centre, low, high, p, method, verdict(centre, p))


def _exp(logarithm: np.ndarray) -> float:
    """A file can hold numbers so far apart that no float holds their ratio; the largest stands for it."""
    return float(np.exp(np.clip(logarithm, -700, 700)))


def verdict(ratio: float, p: float) -> str:
    """What may be said of a ratio with this probability."""
    if p >= 1 - welch.LEVEL or ratio == 1:
        return "too close to call"
    return "faster" if ratio > 1 else "slower"


def _incomparable(run: Run, baseline: Run, metric: str) -> str:
    """Why there can be no ratio; empty where there can."""
    for one, whose in ((run, ""), (baseline, f"{baseline.letter}: ")):
        if reason := _lacking(one, metric):
            return f"{whose}{reason}"
    bases = [next((f.basis for f in one.repeats(metric) if f.basis), "") for one in (run, baseline)]
    if bases[0] != bases[1]:
        return f"of different things: {bases[0]} and {bases[1]}"
    if metric in EVALUATED:
        if run.content.data != baseline.content.data:
            return "trained on different data"
        often = [one.result.spec.training.evaluations_per_epoch for one in (run, baseline)]
        if often[0] != often[1]:
            return f"evaluated {often[0]} and {often[1]} times an epoch, and evaluations are in it"
    return ""


def _lacking(run: Run, metric: str) -> str:
    """Why a run has nothing to compare; empty where it has."""
    figures = run.repeats(metric)
    reasons = [figure.reason for figure in figures if figure.never]
    if not reasons and not processes(run, metric):
        reasons = [figures[0].reason if figures else "not measured"]
    return next(iter([*reasons, *(figure.uncompared for figure in figures if figure.uncompared)]), "")


def processes(run: Run, metric: str) -> list[np.ndarray]:
    """Logarithms of a metric, more being faster, of the processes of each result that has any."""
    of_results = (figures.get((metric, None), []) for figures in run.figures_of_results)
    each = [[figure.value for figure in figures if not figure.reason and figure.value > 0] for figures in of_results]
    return [FASTER_IS[metric] * np.log(values) for values in each if values]
