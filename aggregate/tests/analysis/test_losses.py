"""How far losses are apart."""

import math

import numpy as np
import pytest

from aggregate.analysis.losses import divergences, one_seed_each, relative_difference, traces
from aggregate.tests.factory import SPEC, as_runs, make_result, with_losses


def test_how_far_losses_part() -> None:
    a = with_losses(make_result("mlx"), [4.0, 4.0, 4.0])
    b = with_losses(make_result("tf-cuda"), [4.0, 5.0, 4.4, 1.0])
    (pair,) = divergences(as_runs(a, b))
    assert pair.relative == pytest.approx(0.2)
    assert (pair.step, pair.steps, pair.seeds, pair.unequal) == (2, 3, 1, 0)


def test_losses_that_are_not_finite() -> None:
    a = with_losses(make_result("mlx"), [4.0, None, None])
    b = with_losses(make_result("tf-cuda"), [4.0, 4.0, None])
    (pair,) = divergences(as_runs(a, b))
    assert (pair.relative, pair.steps, pair.unequal) == (0.0, 1, 1)
    (pair,) = divergences(as_runs(with_losses(a, [None]), with_losses(b, [None])))
    assert math.isnan(pair.relative)
    assert pair.steps == 0


def test_the_widest_of_all_common_seeds_counts() -> None:
    a, b = make_result("mlx", repeats=2), make_result("tf-cuda", repeats=3)
    for repeat, losses in ((0, [4.0, 4.0]), (1, [4.0, 4.0])):
        with_losses(a, list(losses), repeat)
    for repeat, losses in ((0, [4.0, 4.0]), (1, [4.0, 2.0]), (2, [9.0])):
        with_losses(b, list(losses), repeat)
    (pair,) = divergences(as_runs(a, b))
    assert (pair.relative, pair.seed, pair.step, pair.seeds, pair.steps) == (0.5, 1, 2, 2, 4)


def test_traces_of_other_data_weights_or_seeds_are_not_laid_over_each_other() -> None:
    plain = make_result("mlx")
    weights = make_result("tf-cuda")
    weights["initial_params"]["fingerprint"] = "cd" * 32
    seed = make_result("torch-ipex")
    for outcome in seed["phases"]:
        outcome["seed"] = 5
    assert not divergences(as_runs(plain, make_result("tf-cuda", data="synthetic")))
    assert not divergences(as_runs(plain, weights))
    assert not divergences(as_runs(plain, seed))
    assert divergences(as_runs(plain, make_result("tf-cuda")))


def test_relative_difference_of_zeros() -> None:
    assert relative_difference(np.array([0.0, 0.0]), np.array([0.0, 2.0])).tolist() == [0.0, 1.0]


def test_one_seed_is_shown_of_each_data_set() -> None:
    runs = as_runs(make_result("mlx", repeats=3), make_result("tf-cuda"), make_result(data="synthetic"))
    shown = one_seed_each(traces(runs))
    assert {(key.data[0], key.seed): list(traces) for key, traces in shown.items()} == {
        ("cifar-100", SPEC.training.seeds[0]): ["A", "B"],
        ("synthetic", SPEC.training.seeds[0]): ["C"],
    }
