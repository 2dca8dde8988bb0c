"""The interval of a ratio: more data is never worse, and it holds what it says."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from aggregate.analysis import prior, welch
from aggregate.analysis.prior import Prior
from aggregate.analysis.welch import Estimate, estimate, half_width, holm, p_value
from aggregate.tests.factory import as_runs, make_result

ONE = Prior(0.05, 0.1, "")
logarithms = st.floats(-0.5, 0.5)
processes = st.lists(logarithms, min_size=1, max_size=6)
sides = st.lists(processes, min_size=1, max_size=4)
spreads = st.floats(0.001, 0.3)


def of(runs: list[list[float]], known: Prior = ONE) -> Estimate:
    return estimate([np.array(run) for run in runs], known)


def spread_of_processes(side: Estimate, runs: list[list[float]], known: Prior) -> float:
    """The standard deviation that the estimate takes processes to have."""
    freedom = side.parts[0][1]
    squares = sum(((np.array(run) - np.mean(run)) ** 2).sum() for run in runs)
    return math.sqrt((prior.PROCESSES * known.process**2 + squares) / freedom)


def spread_of_runs(side: Estimate, runs: list[list[float]], known: Prior) -> float:
    means = np.array([np.mean(run) for run in runs])
    return math.sqrt((prior.RUNS * known.run**2 + ((means - means.mean()) ** 2).sum()) / side.parts[1][1])


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.data(), spreads, spreads)
def test_a_further_process_that_is_no_surprise_never_widens_the_interval(
    runs: list[list[float]], others: list[list[float]], data: st.DataObject, process: float, run: float
) -> None:
    """Added in pairs about the mean of its run, which stays: what changes is only how much is known."""
    known = Prior(process, run, "")
    before, other = of(runs, known), of(others, known)
    i, away = data.draw(st.integers(0, len(runs) - 1)), data.draw(st.floats(0, 1))
    step = away * spread_of_processes(before, runs, known)
    mean = float(np.mean(runs[i]))
    more = [[*values, mean - step, mean + step] if i == j else values for j, values in enumerate(runs)]
    assert half_width(of(more, known), other) <= half_width(before, other) * (1 + 1e-9)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.data(), spreads, spreads)
def test_a_further_run_that_is_no_surprise_never_widens_the_interval(
    runs: list[list[float]], others: list[list[float]], data: st.DataObject, process: float, run: float
) -> None:
    known = Prior(process, run, "")
    before, other = of(runs, known), of(others, known)
    middle = float(np.mean([np.mean(values) for values in runs]))
    mean = middle + data.draw(st.floats(-1, 1)) * spread_of_runs(before, runs, known)
    count = data.draw(st.integers(1, 6))
    assert half_width(of([*runs, [mean] * count], known), other) <= half_width(before, other) * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 3 * ONE.process))
def test_more_processes_of_the_same_spread_never_widen_the_interval(n: int, more: int, sd: float) -> None:
    """Alone as a whole: none of the two-process intervals of Student's that are wider than having no interval at all.

    A spread beyond four times the prior's is a surprise of which a third process convinces more than it informs.
    """

    def half(count: int) -> float:
        values = np.array([0.0]) if count == 1 else stats.zscore(np.arange(count), ddof=1) * sd
        return float(half_width(estimate([values], ONE), estimate([values], ONE)))

    if n > 1 or sd <= ONE.process:
        assert half(n + more) <= half(n) * (1 + 1e-9)


def test_one_run_a_side_without_spread_between_processes_is_students_t() -> None:
    """The variance is the prior's, and its weight the degrees of freedom."""
    side = estimate([np.zeros(3)], Prior(0.0, 0.1, ""))
    assert half_width(side, side) == pytest.approx(stats.t.ppf(0.975, prior.RUNS) * 0.1 * math.sqrt(2))


def test_many_processes_of_one_run_outweigh_the_prior() -> None:
    values = np.random.default_rng(1).normal(0, 0.2, 2000)
    side = estimate([values], ONE, between_runs=False)
    assert half_width(side, side) == pytest.approx(1.96 * 0.2 * math.sqrt(2 / 2000), rel=0.05)


def test_runs_weigh_by_how_well_they_are_known() -> None:
    """Eight processes say more than one where processes differ, and no more where only runs do."""
    runs = [[0.0] * 8, [1.0]]
    assert of(runs, Prior(0.3, 0.0, "")).centre < 0.5
    assert of(runs, Prior(0.0, 0.3, "")).centre == pytest.approx(0.5)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_interval_holds_the_truth_as_often_as_it_says(n: int) -> None:
    """Variances drawn as the prior says: 93 to 97 %, with a standard error of 0.3."""
    rng, draws = np.random.default_rng(n), 4000
    process, run = (
        known * np.sqrt(weight / rng.chisquare(weight, draws)) for known, weight in
        ((ONE.process, prior.PROCESSES), (ONE.run, prior.RUNS))
    )  # fmt: skip
    a, b = (
        rng.normal(0, 1, (draws, 1)) * run[:, None] + rng.normal(0, 1, (draws, n)) * process[:, None] for _ in range(2)
    )
    one, other = (estimate([side], ONE) for side in (a, b))
    assert 0.93 <= np.mean(np.abs(one.centre - other.centre) <= half_width(one, other)) <= 0.97


@settings(max_examples=50, deadline=None)
@given(sides, sides)
def test_the_probability_is_that_of_the_interval_that_touches_one(
    runs: list[list[float]], others: list[list[float]]
) -> None:
    a, b = of(runs), of(others)
    p = float(p_value(a, b))
    difference = abs(float(a.centre - b.centre))
    assert (p < 0.05) == (difference > half_width(a, b)) or p == pytest.approx(0.05)
    if welch.LEAST_P < p < 0.9:  # p is found to some 1e-8: nearer to 1 that is no longer little beside 1 - p
        assert half_width(a, b, 1 - p) == pytest.approx(difference, rel=1e-6)


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_what_has_no_prior_has_the_widest_of_its_class() -> None:
    unknown = prior.prior_of("cpu", "a metric of the future")
    assert (unknown.process, unknown.run) == (0.080, 0.040)
    assert "never measured" in unknown.source
    assert prior.prior_of("gpu-mlx", "latency_p90") is prior.TABLE["gpu-mlx", "latency_p90"]


@pytest.mark.parametrize(
    ("platform", "kind", "expected"),
    [("mlx", "gpu", "gpu-mlx"), ("mlx", "cuda", "gpu-mlx"), ("mlx", "cpu", "cpu"), ("tf-cuda", "cuda", "gpu-xla"),
     ("tf-cuda", "cpu", "cpu"), ("torch-ipex", "cpu", "cpu")],
)  # fmt: skip
def test_classes_of_platforms(platform: str, kind: str, expected: str) -> None:
    assert prior.class_of(as_runs(make_result(platform, device_kind=kind))[0]) == expected
