"""The benchmark's questions: who wins, by how much, who is not known, and what else differs."""

import math
from typing import Any

import pytest

from aggregate.analysis import answer, confounders
from aggregate.analysis.answer import Answer, Key, Standing
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result


def answered(*contents: dict[str, Any]) -> dict[Key, Answer]:
    return answer.answers(as_runs(*contents))


def platforms(standings: tuple[Standing, ...]) -> list[str]:
    return [standing.run.content.platform for standing in standings]


def test_the_fastest_comes_first_with_its_factor_to_the_others() -> None:
    found = answered(*(make_result(name, repeats=3) for name in ("mlx", "tf-cuda", "torch-ipex")))
    (training,) = found["training"].rankings
    assert platforms(training.standings) == ["tf-cuda", "mlx", "torch-ipex"]
    assert platforms((training.best, *training.rivals)) == ["tf-cuda", "mlx", "torch-ipex"]
    best, second, third = (standing.factor for standing in training.standings)
    assert best is second  # of the best itself, against the next
    assert second is not None
    assert third is not None
    assert second.ratio == pytest.approx(3430 / 180, rel=0.05)
    assert third.ratio == pytest.approx(3430 / 11, rel=0.05)
    assert (second.verdict, second.low < second.ratio < second.high) == ("faster", True)
    (latency,) = found["latency"].rankings
    assert latency.best.value == min(standing.value for standing in latency.standings)


def test_the_average_over_a_full_training_comes_first_and_the_window_has_everybody() -> None:
    full = make_result("mlx", phases=FULL_PHASES), make_result("tf-cuda", phases=FULL_PHASES)
    found = answered(*full, make_result("torch-ipex"))
    assert list(found)[:2] == ["full", "training"]
    (over_all,), (window,) = found["full"].rankings, found["training"].rankings
    assert {standing.metric for standing in over_all.standings} == {"full_throughput"}
    assert len(over_all.standings) == 2
    assert {standing.metric for standing in window.standings} == {"training_throughput"}
    assert len(window.standings) == 3


def test_who_is_not_known_says_why() -> None:
    failed = make_result("tf-cuda", failed={("latency", 0): "killed"})
    found = answered(make_result("mlx", phases=FULL_PHASES), failed)
    assert [(run.content.platform, why) for run, why in found["latency"].unknown] == [
        ("tf-cuda", "the latency phase failed: killed")
    ]
    assert [why for _, why in found["target"].unknown] == ["the convergence phase was not run"]
    missed = answered(make_result("mlx", phases=FULL_PHASES, top1=0.3))
    assert not missed["target"].rankings
    assert "was not reached" in missed["target"].unknown[0][1]


def test_quick_and_full_are_compared_at_the_same_batch() -> None:
    full, quick = make_result("tf-cuda", largest_batch=256), make_result("mlx")
    (inference,) = answered(full, quick)["inference"].rankings
    assert {standing.metric for standing in inference.standings} == {"inference_reference"}


def test_kinds_of_memory_and_energy_are_never_ranked_together() -> None:
    found = answered(*(make_result(name, phases=FULL_PHASES) for name in ("mlx", "tf-cuda", "torch-ipex")))
    kinds = [ranking.kind for ranking in found["memory"].rankings]
    assert len(kinds) == len(set(kinds)) == 3
    assert all(len(ranking.standings) == 1 for ranking in found["memory"].rankings)
    (energy,) = found["energy"].rankings  # the factory's meter is the same everywhere
    assert len(energy.standings) == 3
    factor = energy.best.factor
    assert factor is not None
    assert (factor.verdict, math.isnan(factor.low)) == ("", True)


def test_what_differs_is_found_and_what_does_not_is_left_out() -> None:
    runs = as_runs(make_result("mlx"), make_result("tf-cuda"))
    aspects = {each.aspect: each.values for each in confounders.confounders(runs)}
    assert "data" not in aspects
    assert set(aspects["framework"]) == {"MLX 0.32.4", "TensorFlow 2.21.0"}
    assert not confounders.confounders(runs[:1])


def test_same_hardware_tells_the_frameworks_share() -> None:
    on_h200 = make_result("mlx", device_name="NVIDIA H200", device_kind="cuda", repeats=2)
    (pair,) = confounders.on_same_hardware(as_runs(on_h200, make_result("tf-cuda", repeats=2), make_result()))
    assert (pair.hardware, pair.faster.content.platform, pair.slower.content.platform) == (
        "NVIDIA H200",
        "tf-cuda",
        "mlx",
    )
    assert pair.ratio.verdict == "faster"
