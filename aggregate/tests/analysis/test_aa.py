"""The A/A test: it counts every false verdict, and the committed results have few enough."""

import dataclasses

import numpy as np
import pytest

from aggregate.analysis import aa, merging
from aggregate.analysis.aa import LEVELS, Pair, Row, splits
from aggregate.analysis.reading import load
from aggregate.tests.analysis.test_ratios import with_rates
from aggregate.tests.conftest import RESULTS
from aggregate.tests.factory import PRICES, as_runs, make_result


def rows_of(*rates: list[float]) -> dict[str, Row]:
    """The rows on training of MLX results whose processes trained at these rates, by level."""
    contents = [with_rates(make_result("mlx", repeats=len(each), number=i), *each) for i, each in enumerate(rates)]
    return {row.level: row for row in aa.test(as_runs(*contents)) if row.metric == "training_throughput"}


def test_all_pairs_of_processes_and_of_runs_are_counted() -> None:
    rows = rows_of([1.0, 1.01, 1.02, 1.03], [1.0, 1.01], [1.0])
    assert {level: len(row.pairs) for level, row in rows.items()} == dict(zip(LEVELS, (6 + 1, 3, 3), strict=True))
    assert [rows[level].judged for level in LEVELS] == [0, 3, 1]
    assert [rows[level].false for level in LEVELS] == [0, 0, 0]


def test_what_falls_into_two_is_called_different_and_fails() -> None:
    """Two processes as fast as one another, and two half as fast: far beyond what processes differ by."""
    rows = rows_of([1.0, 1.0, 2.0, 2.0])
    assert rows[LEVELS[0]].apart == 4
    assert rows[LEVELS[1]].false == 1
    assert not aa.passes(list(rows.values()))


def test_runs_far_apart_are_false_verdicts_and_single_processes_far_apart_are_none() -> None:
    rows = rows_of([1.0] * 3, [3.0] * 3)
    assert (rows[LEVELS[2]].judged, rows[LEVELS[2]].false) == (1, 1)
    alone = rows_of([1.0], [3.0])
    assert (alone[LEVELS[2]].judged, alone[LEVELS[2]].false, alone[LEVELS[2]].apart) == (0, 0, 1)
    assert aa.passes(list(alone.values()))


def test_things_that_differ_are_never_paired() -> None:
    runs = as_runs(make_result("mlx"), make_result("mlx", precision="bf16"), make_result("mlx", device_name="Apple M9"))
    assert aa.test(runs) == []
    assert aa.spreads(runs) == []


def test_more_than_one_false_verdict_in_twenty_is_too_many() -> None:
    fine, false = Pair(judged=True, apart=False, same_commit=True), Pair(judged=True, apart=True, same_commit=True)
    row = Row(LEVELS[1], "training_throughput", "cpu", (false, *[fine] * 19))
    assert aa.passes([row])
    assert not aa.passes([dataclasses.replace(row, pairs=(false, *[fine] * 18))])


@pytest.mark.parametrize(("n", "size", "ways"), [(4, 2, 3), (8, 2, 210), (8, 4, 35), (20, 10, 1000)])
def test_each_way_to_set_some_processes_against_others(n: int, size: int, ways: int) -> None:
    a, b = splits(n, size)
    assert a.shape == b.shape == (ways, size)
    together = np.sort(np.concatenate([a, b], 1), 1)
    assert (np.diff(together, axis=1) > 0).all()
    if ways < aa.MAX_SPLITS:
        assert (
            len({frozenset([frozenset(x), frozenset(y)]) for x, y in zip(a.tolist(), b.tolist(), strict=True)}) == ways
        )


def test_spreads_worked_out_by_hand() -> None:
    contents = [with_rates(make_result("mlx", repeats=2, number=i), *np.exp(each)) for i, each in
                enumerate(([0.0, 0.02], [0.3, 0.34]))]  # fmt: skip
    spread = next(s for s in aa.spreads(as_runs(*contents)) if s.metric == "training_throughput")
    between_processes = (0.0002 + 0.0008) / 2
    assert (spread.process_freedom, spread.run_freedom) == (2, 1)
    assert spread.process == pytest.approx(between_processes**0.5)
    assert spread.run == pytest.approx((0.31**2 / 2 - between_processes / 2) ** 0.5)


def test_committed_results_have_few_false_verdicts() -> None:
    loaded = load([RESULTS])
    rows = aa.test(merging.runs(loaded.results, PRICES))
    judged = sum(row.judged for row in rows)
    assert judged > 1000
    assert sum(row.false for row in rows) <= aa.ALLOWED * judged
    assert aa.passes(rows)
