"""How many times as fast as a baseline: with an interval, and a verdict only where the interval allows one.

A ratio is that of the geometric means of what is independent: of the repeats where both runs have two or more,
else of consecutive parts of the one window or series of samples, each side's. With ten or more of these on both
sides the 95 % interval is a bootstrap (BCa, scipy.stats.bootstrap); with fewer a bootstrap is too narrow, and it is
Welch's t interval on the logarithms. Parts of one process know nothing of what differs between processes: with
them alone, differences below the spec's interval_tolerance are too close to call, whatever the interval.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from aggregate.analysis.merging import Run
from aggregate.analysis.sections import Section
from shared_spec.errors import UserError
from shared_spec.results.measurements import BatchWindow, Inference, Latency, Training
from shared_spec.results.stability import MIN_BOOTSTRAP, step_rate

T = TypeVar("T")

FASTER_IS = {
    "training_throughput": +1,
    "latency_median": -1,
    "latency_p90": -1,
    "inference_best": +1,
    "full_throughput": +1,
    "time_to_target": -1,
}
"""Metrics of speed: +1 where more is faster, -1 where less is."""
MAX_PARTS = 20
"""Parts that a single series is cut into."""
MIN_SAMPLES = 10
"""Samples that a part of latencies has at least."""
LEVEL = 0.95
DEFINITION = (
    "Ratio of the geometric means of the repeats, above 1 where the run is faster than its baseline, with a 95 % "
    f"interval: a bootstrap (BCa) from {MIN_BOOTSTRAP} repeats on either side on, with fewer Welch's t interval on the "
    "logarithms, because a bootstrap of few values is too narrow. Where one side has a single repeat, the parts of "
    "its window stand for repeats; they know nothing of what differs between processes, so that small differences "
    "(the workload's interval_tolerance) are too close to call then. Faster and slower are said only where the whole "
    "interval is on one side of 1."
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
        method: how the interval was found.
        verdict: "faster", "slower" or "too close to call"; empty where there is none.
        reason: why there is no ratio or no verdict.
    """

    baseline: str
    metric: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    verdict: str = ""
    reason: str = ""


def baseline_of(section: Section, wanted: str, all_runs: Sequence[Run]) -> Run | None:
    """The run of a section that the others are measured against; None if it has none.

    Args:
        section: where it is looked for.
        wanted: letter, file, platform, engine, "platform/engine" or device; empty for the section's first run. What
            stands in another section stands for its counterpart here: the same platform and engine on the same devices.
        all_runs: of all sections.

    Raises:
        UserError: no run at all is called so.
    """
    if not wanted:
        return section.runs[0]
    named = [run for run in all_runs if wanted.casefold() in _names(run)]
    if not named:
        known = ", ".join(f"{run.letter} ({run.content.platform}/{run.content.engine})" for run in all_runs[:20])
        raise UserError(f"--baseline {wanted}: no run is called so; choose a letter, platform or file: {known}.")
    here = [run for run in section.runs if run in named]
    counterparts = [run for run in section.runs if _thing(run) == _thing(named[0])]
    return next(iter(here + counterparts), None)


def _names(run: Run) -> set[str]:
    c = run.content
    names = {run.letter, c.platform, c.engine, f"{c.platform}/{c.engine}", run.hardware.short}
    return {name.casefold() for name in names | {run.hardware.model} | {result.file for result in run.results}}


def _thing(run: Run) -> tuple[str, ...]:
    return run.content.platform, run.content.engine, run.hardware.short, run.ranks.words


def ratios(runs: Sequence[Run], baseline: Run) -> dict[tuple[str, str], Ratio]:
    """Ratios of all other runs, which must be of the baseline's section, by letter and metric."""
    others = [run for run in runs if run is not baseline]
    return {(run.letter, metric): ratio(run, baseline, metric) for run in others for metric in FASTER_IS}


def ratio(run: Run, baseline: Run, metric: str) -> Ratio:
    """How many times as fast as `baseline` a run is."""
    if reason := _incomparable(run, baseline, metric):
        return Ratio(baseline.letter, metric, reason=reason)
    of_run, of_baseline = _repeats(run, metric), _repeats(baseline, metric)
    repeated = min(len(of_run), len(of_baseline)) > 1
    if not repeated:
        of_run, of_baseline = _parts(run, metric), _parts(baseline, metric)
    if min(len(of_run), len(of_baseline)) < 2:
        alone = float(np.median(_repeats(run, metric)) / np.median(_repeats(baseline, metric)))
        reason = "measured once, with nothing to tell chance by"
        return Ratio(baseline.letter, metric, alone ** FASTER_IS[metric], reason=reason)
    a, b = (FASTER_IS[metric] * np.log(values) for values in (of_run, of_baseline))
    low, high, method = interval(a, b)
    centre = float(np.exp(a.mean() - b.mean()))
    margin = 0.0 if repeated else run.result.spec.measuring.interval_tolerance
    of_what = "repeats" if repeated else "parts of one process"
    method = f"{method}, {len(a)} and {len(b)} {of_what}"
    return Ratio(baseline.letter, metric, centre, low, high, method, verdict(centre, low, high, margin))


def interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float, str]:
    """95 % interval of exp(mean(a) - mean(b)), for logarithms of at least two values each, and how it was found."""
    difference = a.mean() - b.mean()
    error = math.hypot(stats.sem(a), stats.sem(b))
    if error < 1e-12:
        return math.exp(difference), math.exp(difference), "no variation"
    if min(len(a), len(b)) < MIN_BOOTSTRAP:
        freedom = error**4 / sum(stats.sem(x) ** 4 / (len(x) - 1) for x in (a, b))
        half = error * float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
        return math.exp(difference - half), math.exp(difference + half), "Welch"
    bootstrap = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True, n_resamples=1999,
        confidence_level=LEVEL, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return math.exp(bootstrap.low), math.exp(bootstrap.high), "bootstrap"


def verdict(centre: float, low: float, high: float, margin: float) -> str:
    """What the interval allows to say; differences below `margin` never decide."""
    if low > 1 and centre > 1 + margin:
        return "faster"
    if high < 1 and centre < 1 / (1 + margin):
        return "slower"
    return "too close to call"


def _incomparable(run: Run, baseline: Run, metric: str) -> str:
    """Why there can be no ratio; empty where there can."""
    for one, whose in ((run, ""), (baseline, f"{baseline.letter}: ")):
        figures = one.repeats(metric)
        lacking = [figure.reason for figure in figures if figure.never]
        if lacking:
            return f"{whose}{lacking[0]}"
        if not len(_repeats(one, metric)):
            return f"{whose}{figures[0].reason if figures else 'not measured'}"
    if metric in ("full_throughput", "time_to_target") and run.content.data != baseline.content.data:
        return "trained on different data"
    return ""


def _repeats(run: Run, metric: str) -> np.ndarray:
    """The metric's value in every repeat that has one, in whatever unit."""
    figures = run.repeats(metric)
    return np.array([figure.value for figure in figures if not figure.reason and figure.value > 0])


def _parts(run: Run, metric: str) -> np.ndarray:
    """The metric's value in consecutive parts of every repeat; empty for what has no parts."""
    if metric == "training_throughput":
        return np.concatenate([_window_parts(measured) for measured in run.measured(Training)])
    if metric == "inference_best":
        return np.concatenate([_window_parts(measured.fastest) for measured in run.measured(Inference)])
    if metric in ("latency_median", "latency_p90"):
        q = 50 if metric == "latency_median" else 90
        return np.concatenate([_sample_parts(m.host_to_host_seconds, q) for m in run.measured(Latency)])
    return np.array([])


def _window_parts(window: BatchWindow) -> np.ndarray:
    """Images per second of consecutive parts of a window; parts too short to divide by are none."""
    blocks = window.window_blocks
    rates: np.ndarray = np.array([step_rate(part) for part in _cut(blocks, min(MAX_PARTS, len(blocks)))])
    finite: np.ndarray = window.batch_size * rates[np.isfinite(rates)]
    return finite


def _sample_parts(samples: Sequence[float], q: int) -> np.ndarray:
    return np.array([np.percentile(part, q) for part in _cut(samples, min(MAX_PARTS, len(samples) // MIN_SAMPLES))])


def _cut(values: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Consecutive parts of nearly equal length."""
    edges = [round(i * len(values) / parts) for i in range(parts + 1)] if parts else []
    return [values[i:j] for i, j in itertools.pairwise(edges)]
