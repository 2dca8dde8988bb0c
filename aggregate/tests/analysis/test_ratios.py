"""Ratios against a baseline: known answers, coverage of the interval, and what must not be compared."""

import math
from typing import Any

import numpy as np
import pytest

from aggregate.analysis import ratios
from aggregate.analysis.ratios import FASTER_IS, Ratio, baseline_of, interval, verdict
from aggregate.analysis.sections import sections
from aggregate.tests.factory import as_runs, make_result
from shared_spec.errors import UserError


def against_first(*contents: dict[str, Any], metric: str = "training_throughput") -> Ratio:
    baseline, run = as_runs(*contents)
    return ratios.ratio(run, baseline, metric)


def with_rates(content: dict[str, Any], *rates: float) -> dict[str, Any]:
    """`content` with these steps per second in the windows of its training repeats."""
    training = [o["measurements"] for o in content["phases"] if o["phase"] == "training"]
    for measured, rate in zip(training, rates, strict=True):
        measured["window_blocks"] = [[10, 10 / rate]] * 4
    return content


def test_ratio_of_repeats_worked_out_by_hand() -> None:
    slow = with_rates(make_result("mlx", repeats=3), 1.0, 1.0, 1.0)
    fast = with_rates(make_result("tf-cuda", repeats=3), 2.0, 2.1, 2.205)
    ratio = against_first(slow, fast)
    assert ratio.ratio == pytest.approx(2.1)
    # Welch with one side constant: t(0.975, 2 degrees) = 4.3027, standard error log(1.05) / sqrt(3)
    assert ratio.high == pytest.approx(2.1 * math.exp(4.3027 * math.log(1.05) / math.sqrt(3)), rel=1e-4)
    assert ratio.verdict == "faster"
    assert ratio.method == "Welch, 3 and 3 repeats"


def test_faster_means_less_time() -> None:
    slow, fast = make_result("mlx", speed=100), make_result("tf-cuda", speed=300)
    for metric in ("latency_median", "latency_p90", "training_throughput", "inference_best"):
        ratio = against_first(slow, fast, metric=metric)
        assert (ratio.ratio > 1.5, ratio.verdict) == (True, "faster"), metric
    assert against_first(make_result("mlx"), make_result("torch-ipex"), metric="latency_median").verdict == "slower"


@pytest.mark.parametrize("speeds", [(100.0, 103.0), (103.0, 100.0)])
def test_single_processes_a_little_apart_are_too_close_to_call(speeds: tuple[float, float]) -> None:
    ratio = against_first(make_result("mlx", speed=speeds[0]), make_result("tf-cuda", speed=speeds[1]))
    assert "parts of one process" in ratio.method
    assert not ratio.low < 1 < ratio.high
    assert ratio.verdict == "too close to call"


def test_verdicts() -> None:
    assert verdict(1.2, 1.1, 1.3, 0.05) == "faster"
    assert verdict(0.8, 0.7, 0.9, 0.05) == "slower"
    assert verdict(1.2, 0.9, 1.5, 0.0) == "too close to call"
    assert verdict(1.02, 1.01, 1.03, 0.0) == "faster"
    assert verdict(1.02, 1.01, 1.03, 0.05) == "too close to call"


@pytest.mark.parametrize(("n", "least"), [(3, 0.93), (5, 0.93), (12, 0.91), (20, 0.92)])
def test_the_interval_holds_a_true_ratio_of_1_10_as_often_as_it_says(n: int, least: float) -> None:
    rng, draws, held = np.random.default_rng(1), 600, 0
    for _ in range(draws):
        a, b = np.log(1.10) + rng.normal(0, 0.03, n), rng.normal(0, 0.02, n)
        low, high, _ = interval(a, b)
        held += low <= 1.10 <= high
    assert least <= held / draws <= 0.99


def test_equal_values_have_an_interval_without_width() -> None:
    assert interval(np.zeros(3), np.zeros(4)) == (1.0, 1.0, "no variation")
    low, high, method = interval(np.zeros(12), np.log(np.linspace(1, 2, 12)))
    assert (low < high < 1, method) == (True, "bootstrap")


def test_what_was_not_measured_or_not_reached_has_no_ratio() -> None:
    failed = make_result("tf-cuda", failed={("latency", 0): "killed"})
    ratio = against_first(make_result("mlx"), failed, metric="latency_median")
    assert (math.isnan(ratio.ratio), ratio.reason) == (True, "the latency phase failed: killed")
    run, baseline = as_runs(make_result("mlx"), failed)
    assert ratios.ratio(run, baseline, "latency_median").reason == "B: the latency phase failed: killed"
    phases = ("convergence",)
    missed = against_first(
        make_result("mlx", phases=phases, seeds=2),
        make_result("tf-cuda", phases=phases, seeds=2, top1=0.3),
        metric="time_to_target",
    )
    assert math.isnan(missed.ratio)
    assert "was not reached" in missed.reason


def test_one_training_each_gives_a_ratio_and_no_verdict() -> None:
    phases = ("convergence",)
    pair = make_result("mlx", phases=phases), make_result("tf-cuda", phases=phases)
    ratio = against_first(*pair, metric="time_to_target")
    assert ratio.ratio > 5
    assert (ratio.verdict, math.isnan(ratio.low)) == ("", True)
    assert "measured once" in ratio.reason


def test_the_baseline_by_letter_platform_file_or_device_and_its_counterpart() -> None:
    runs = as_runs(
        make_result("mlx"), make_result("tf-cuda"), make_result("mlx", precision="bf16"),
        make_result("tf-cuda", precision="bf16"),
    )  # fmt: skip
    fp32, bf16 = sections(runs)
    assert baseline_of(fp32, "", runs) is runs[0]
    for wanted in ("b", "tf-cuda", "1.json", "nvidia h200", "tf-cuda/xla"):
        assert baseline_of(fp32, wanted, runs) is runs[1], wanted
        assert baseline_of(bf16, wanted, runs) is runs[3], wanted
    only = sections(as_runs(make_result("mlx"), make_result("tf-cuda", precision="bf16")))
    assert baseline_of(only[0], "B", only[0].runs + only[1].runs) is None
    with pytest.raises(UserError, match="--baseline torch: no run is called so"):
        baseline_of(fp32, "torch", runs)


def test_extreme_numbers_raise_nothing() -> None:
    tiny = make_result("tf-cuda")
    for outcome in tiny["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["window_blocks"] = [[1, 5e-324], [1, 1e8]]
        if outcome["phase"] == "latency":
            outcome["measurements"]["host_to_host_seconds"] = [1e-300]
    for metric in FASTER_IS:
        against_first(make_result("mlx"), tiny, metric=metric)
