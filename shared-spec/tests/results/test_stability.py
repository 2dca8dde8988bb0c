"""How sure a figure is: against numbers worked out by hand, and against chance."""

import numpy as np
import pytest

from shared_spec.results import stability
from shared_spec.results.stability import (
    drift,
    interval_width,
    of_window,
    quantile_interval,
    variation,
    window_interval,
)
from shared_spec.workload.spec import Spec


@pytest.mark.parametrize(
    ("figures", "width"),
    [([5.0, 5.0, 5.0], 0.0), ([1.0, 2.0], 2 * 12.706 * 0.5 / 1.5), ([99.0, 100.0, 101.0, 100.0], 0.025983)],
)
def test_interval_width(figures: list[float], width: float) -> None:
    assert interval_width(figures) == pytest.approx(width, abs=1e-5)


@pytest.mark.parametrize("n", [2, 5, 8, 12])
def test_the_interval_of_repeats_holds_the_truth_as_often_as_it_says(n: int) -> None:
    drawn = np.random.default_rng(0).normal(100.0, 2.0, (4000, n))
    inside = [abs(row.mean() - 100.0) <= interval_width(row) * row.mean() / 2 for row in drawn]
    assert 0.94 <= np.mean(inside) <= 0.975


def test_the_interval_of_a_window_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    truth, inside = 100.0, 0
    for _ in range(300):
        blocks = [[50.0, 0.5 * float(np.exp(random.normal(0, 0.02) - 0.0002))] for _ in range(40)]
        low, high = window_interval(blocks) or (0.0, 0.0)
        inside += low <= truth <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_the_interval_of_a_window_is_about_the_rate_over_all_blocks() -> None:
    blocks = [[10.0, 1.0]] * 9 + [[100.0, 2.0]]
    low, high = window_interval(blocks) or (0.0, 0.0)
    assert stability.step_rate(blocks) == pytest.approx(190 / 11)
    assert low < 190 / 11 < high
    assert window_interval([[10.0, 1.0]] * 9) is None


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_the_interval_of_a_quantile_holds_the_truth_as_often_as_it_says(q: float) -> None:
    random = np.random.default_rng(1)
    truth, inside = -np.log(1 - q), 0
    for _ in range(1000):
        low, high = quantile_interval(random.exponential(1.0, 200).tolist(), q) or (0.0, 0.0)
        inside += low <= truth <= high
    assert 0.94 <= inside / 1000 <= 0.985


def test_a_median_of_too_few_samples_has_no_interval() -> None:
    assert quantile_interval([1.0] * 7, 0.5) is None
    assert quantile_interval([8.0, 3.0, 1.0, 2.0, 6.0, 5.0, 4.0, 7.0], 0.5) == (1.0, 8.0)
    assert quantile_interval(list(map(float, range(20))), 0.99) is None


def test_drift_and_variation() -> None:
    assert drift([[1, 1.0], [1, 1.0], [1, 1.0], [1, 5.0], [1, 1.2], [1, 1.2]]) == pytest.approx(0.2)
    assert drift([[1, 1.0], [1, 2.0]]) is None
    assert variation([[10, 10.0], [5, 10.0], [1, 3.0]]) == pytest.approx(0.5)
    assert variation([[1, 1.0], [1, 2.0]]) is None


def test_verdict_names_everything_that_is_wrong_and_nothing_else(tiny_spec: Spec) -> None:
    rules = tiny_spec.measuring.changed(drift_tolerance=0.05, steady_tolerance=0.05)
    calm = [[10, 1.0], [10, 1.01], [10, 0.99]]
    assert of_window(calm, True, rules).objections == ()
    assert of_window(calm, False, rules).objections == ("step times had not become steady when the window began",)
    slower = of_window([[10, 1.0], [10, 1.03], [10, 1.06]], True, rules).objections
    assert slower == ("step times drifted over the window by +6.0%",)
    uneven = of_window([[10, 1.0], [10, 1.5], [10, 1.0]], True, rules).objections
    assert len(uneven) == 1
    assert "coefficient of variation is 24.7%" in uneven[0]
