"""Ratios against a baseline: known answers, verdicts and their number, and what must not be compared."""

import math
from typing import Any

import pytest
from scipy import stats

from aggregate.analysis import ratios
from aggregate.analysis.ratios import FASTER_IS, Ratio, verdict
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result


def against_first(*contents: dict[str, Any], metric: str = "training_throughput") -> Ratio:
    baseline, run = as_runs(*contents)
    return ratios.ratio(run, baseline, metric)


def with_rates(content: dict[str, Any], *rates: float) -> dict[str, Any]:
    """`content` with these steps per second in the windows of its training repeats."""
    training = [o["measurements"] for o in content["phases"] if o["phase"] == "training"]
    for measured, rate in zip(training, rates, strict=True):
        measured["window_blocks"] = [[10, 10 / rate]] * 4
    return content


def test_ratio_of_processes_worked_out_by_hand() -> None:
    slow = with_rates(make_result("mlx", repeats=3), 1.0, 1.0, 1.0)
    fast = with_rates(make_result("tf-cuda", repeats=3), 2.0, 2.1, 2.205)
    ratio = against_first(slow, fast)
    assert ratio.ratio == pytest.approx(2.1)
    # The priors of gpu-mlx and gpu-xla weigh 8 and 4; squares of 0 and 2 log(1.05)^2, three processes, one run a side.
    between_processes = [(8 * 0.038**2 + 0) / 10, (8 * 0.0052**2 + 2 * math.log(1.05) ** 2) / 10]
    between_runs = [0.11**2, 0.014**2]
    t10, t4 = stats.t.ppf(0.975, 10), stats.t.ppf(0.975, 4)
    half = math.sqrt(t10**2 * sum(between_processes) / 3 + t4**2 * sum(between_runs))
    assert (ratio.low, ratio.high) == pytest.approx((2.1 * math.exp(-half), 2.1 * math.exp(half)))
    assert ratio.verdict == "faster"
    assert ratio.method == "3 and 3 processes in 1 and 1 run"


def test_faster_means_less_time() -> None:
    slow, fast = make_result("mlx", speed=100, repeats=3), make_result("tf-cuda", speed=300, repeats=3)
    for metric in ("latency_median", "latency_p90", "training_throughput", "inference_reference"):
        ratio = against_first(slow, fast, metric=metric)
        assert (ratio.ratio > 1.5, ratio.verdict) == (True, "faster"), metric
    slower = make_result("mlx", repeats=2), make_result("torch-ipex", repeats=2)
    assert against_first(*slower, metric="latency_median").verdict == "slower"


@pytest.mark.parametrize("speeds", [(100.0, 103.0), (103.0, 100.0), (1.0, 1000.0)])
@pytest.mark.parametrize(("repeats", "alone"), [((1, 1), "each"), ((5, 1), "on one side"), ((1, 5), "on one side")])
def test_one_process_on_a_side_is_a_ratio_and_no_verdict(
    speeds: tuple[float, float], repeats: tuple[int, int], alone: str
) -> None:
    of_run, of_baseline = repeats
    ratio = against_first(
        make_result("mlx", speed=speeds[0], repeats=of_baseline),
        make_result("tf-cuda", speed=speeds[1], repeats=of_run),
    )
    assert ratio.ratio > 0
    assert (ratio.verdict, math.isnan(ratio.low), math.isnan(ratio.p)) == ("", True, True)
    assert ratio.reason == f"one process {alone}: no verdict"


def test_what_differs_between_runs_widens_an_interval_that_processes_alone_made_narrow() -> None:
    """Two processes of one run know less of a machine than one process in each of two runs."""
    in_one = [with_rates(make_result("mlx", repeats=2), 1.0, 1.01)]
    in_two = [with_rates(make_result("mlx", number=i), rate) for i, rate in enumerate((1.0, 1.01))]
    fast = with_rates(make_result("tf-cuda", repeats=2), 1.3, 1.3)
    few, several = against_first(*in_one, fast), against_first(*in_two, fast)
    assert several.method == "2 and 2 processes in 1 and 2 runs"
    assert several.ratio == pytest.approx(few.ratio)
    assert several.high / several.low < few.high / few.low


def test_verdicts() -> None:
    assert verdict(1.2, 0.04) == "faster"
    assert verdict(0.8, 0.04) == "slower"
    assert verdict(1.2, 0.06) == "too close to call"
    assert verdict(1.0, 1.0) == "too close to call"


def test_the_verdicts_of_a_table_are_corrected_for_their_number() -> None:
    alone = {str(i): Ratio("A", str(i), 1.1, 1.01, 1.2, p, "m", "faster") for i, p in enumerate((0.03, 0.0001, 0.04))}
    table = {("B", key): ratio for key, ratio in alone.items()} | {("C", "0"): Ratio("A", "0", reason="not measured")}
    corrected = ratios.corrected(table)
    assert [ratio.verdict for ratio in corrected.values()] == ["too close to call", "faster", "too close to call", ""]
    assert [corrected["B", key].p for key in alone] == pytest.approx([0.06, 0.0003, 0.06])
    assert corrected["B", "0"].method == "m; one of 3 verdicts, and chance alone makes one such of so many"
    assert corrected["B", "1"].method == "m; one of 3 verdicts"
    assert list(corrected) == list(table)


def test_the_table_of_a_section_is_corrected() -> None:
    runs = as_runs(*(make_result(p, repeats=3) for p in ("mlx", "tf-cuda", "torch-ipex")))
    table = ratios.ratios(runs, runs[0])
    judged = [ratio for (_, metric), ratio in table.items() if ratio.verdict and metric in FASTER_IS]
    assert len(judged) == 8
    for (letter, metric), ratio in table.items():
        if metric == "headline_throughput":  # the verdict of the window, and no further one
            assert (ratio.ratio, ratio.p) == (
                table[letter, "training_throughput"].ratio,
                table[letter, "training_throughput"].p,
            )
        elif ratio.verdict:
            alone = ratios.ratio(next(run for run in runs if run.letter == letter), runs[0], metric)
            assert ratio.p >= alone.p
            assert "; one of 8 verdicts" in ratio.method


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
        metric="target_crossing",
    )
    assert math.isnan(missed.ratio)
    assert "was not reached" in missed.reason


def test_one_training_each_gives_a_ratio_and_no_verdict() -> None:
    phases = ("convergence",)
    pair = make_result("mlx", phases=phases), make_result("tf-cuda", phases=phases)
    ratio = against_first(*pair, metric="target_crossing")
    assert ratio.ratio > 5
    assert (ratio.verdict, math.isnan(ratio.low)) == ("", True)
    assert ratio.reason == "one process each: no verdict"


def test_a_full_training_and_a_window_have_no_ratio() -> None:
    """The planted fault of 1.94 against 1.32: a window of one set against the other's full training."""
    quick, full = make_result("mlx", repeats=3), make_result("tf-cuda", repeats=3, phases=FULL_PHASES, seeds=3)
    baseline, run = as_runs(quick, full)
    headline = ratios.ratios((baseline, run), baseline)[run.letter, "headline_throughput"]
    assert (math.isnan(headline.ratio), headline.verdict) == (True, "")
    assert headline.reason == "a full training and a steady window do not compare"
    both = as_runs(make_result("mlx", phases=FULL_PHASES, seeds=3), full)
    table = ratios.ratios(both, both[0])
    assert table["B", "headline_throughput"].ratio == table["B", "full_throughput"].ratio
    assert table["B", "headline_throughput"].ratio != table["B", "training_throughput"].ratio


def test_figures_of_different_bases_have_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FASTER_IS, "energy_per_image", -1)
    mac, gpu = make_result("mlx", repeats=3), make_result("tf-cuda", repeats=3)
    for content, scope in ((mac, "whole chip"), (gpu, "the board")):
        for outcome in content["phases"]:
            if outcome["phase"] == "training":
                measured = outcome["measurements"]
                measured["window_blocks"] = [[100, 15.0]] * 4
                measured["energy"] |= {"joules": 6000.0, "scope": scope}
    assert against_first(mac, gpu, metric="energy_per_image").reason.startswith("of different things: rapl-package")
    for outcome in gpu["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["energy"]["scope"] = "whole chip"
    assert against_first(mac, gpu, metric="energy_per_image").verdict
    for outcome in gpu["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["window_blocks"] = [[100, 5.0]] * 4
    assert "shorter than 60 s" in against_first(mac, gpu, metric="energy_per_image").reason


def test_extreme_numbers_raise_nothing() -> None:
    tiny = make_result("tf-cuda")
    for outcome in tiny["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["window_blocks"] = [[1, 5e-324], [1, 1e8]]
        if outcome["phase"] == "latency":
            outcome["measurements"]["host_to_host_seconds"] = [1e-300]
    for metric in FASTER_IS:
        against_first(make_result("mlx"), tiny, metric=metric)
