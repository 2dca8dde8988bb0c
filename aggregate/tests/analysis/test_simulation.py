"""Simulated comparisons: what is drawn is what is said, and a method that claims too much is found out."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from aggregate.analysis import prior, simulation, welch
from aggregate.analysis.prior import Parts
from aggregate.analysis.simulation import LAYOUTS, RATIOS, Layout, Row, autoregression, processes, variance_of_mean

DRAWS = 400


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(simulation.simulate(DRAWS))


def test_every_metric_and_class_in_every_layout(rows: Sequence[Row]) -> None:
    assert len(rows) == len(prior.TABLE) * len(LAYOUTS)
    assert all(len(row.power) == len(RATIOS) for row in rows)


def test_intervals_hold_the_truth_and_false_verdicts_are_few(rows: Sequence[Row]) -> None:
    assert simulation.passes(rows, DRAWS)
    judged = [row for row in rows if row.layout != Layout(1, 1)]
    assert 0.93 <= np.mean([row.coverage for row in judged]) <= 0.97
    assert np.mean([row.false for row in judged]) <= 0.05


def test_one_process_a_side_finds_nothing_and_says_nothing_false(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.layout == Layout(1, 1):
            assert (row.false, row.power, np.isnan(row.coverage)) == (0, (0, 0, 0), True)


def test_more_processes_and_larger_ratios_are_found_more_often(rows: Sequence[Row]) -> None:
    power = {layout: np.mean([row.power for row in rows if row.layout == layout], 0) for layout in LAYOUTS}
    for found in power.values():
        assert (np.diff(found) >= 0).all()
    assert power[Layout(1, 2)][1] < power[Layout(1, 8)][1] < power[Layout(3, 3)][1]


def test_the_same_seed_gives_the_same_draws() -> None:
    first, again, other = (
        next(r for r in simulation.simulate(200, seed) if r.layout == Layout(1, 2)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_method_that_claims_too_much_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals half as wide hold the truth too seldom; twice as wide, too often."""
    half_width = welch.half_width
    for factor in (0.5, 2.0):
        monkeypatch.setattr(welch, "half_width", lambda a, b, f=factor: f * half_width(a, b))
        assert not simulation.passes(list(simulation.simulate(200)), 200)


def test_spreads_larger_than_those_known_beforehand_are_found_out() -> None:
    rows = list(simulation.simulate(200, spread=3))
    assert not simulation.passes(rows, 200)
    false = {layout: np.mean([row.false for row in rows if row.layout == layout]) for layout in LAYOUTS}
    assert false[Layout(1, 2)] > 0.1
    assert false[Layout(3, 3)] < false[Layout(1, 2)]


def test_a_row_that_fails_alone_fails_all(rows: Sequence[Row]) -> None:
    i = next(i for i, row in enumerate(rows) if row.layout == Layout(1, 3))
    assert not simulation.passes([*rows[:i], dataclasses.replace(rows[i], coverage=0.85), *rows[i + 1 :]], DRAWS)


@pytest.mark.parametrize("lag", [-0.4, 0.0, 0.6])
def test_neighbours_correlate_as_asked(lag: float) -> None:
    series = autoregression(np.random.default_rng(0), lag, (20000,))
    assert series.std(0) == pytest.approx(1, abs=0.03)
    assert np.corrcoef(series[:, 7], series[:, 8])[0, 1] == pytest.approx(lag, abs=0.02)
    assert np.corrcoef(series[:, 7], series[:, 9])[0, 1] == pytest.approx(lag**2, abs=0.02)
    assert series.mean(1).var() == pytest.approx(variance_of_mean(lag), rel=0.05)


@pytest.mark.parametrize("parts", [None, Parts(0.05, 0.4), Parts(5.0, 0.4)])
def test_processes_differ_by_as_much_as_asked_whatever_part_of_it_is_their_series(parts: Parts | None) -> None:
    drawn = processes(np.random.default_rng(0), parts, np.full(20000, 0.07), 2)
    assert drawn.std(0) == pytest.approx(0.07, rel=0.03)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0, abs=0.03)
