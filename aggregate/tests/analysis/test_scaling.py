"""Several ranks: never merged with one, efficiency worked out by hand, and what is known of one rank only."""

import math
from pathlib import Path
from typing import Any

import pytest

from aggregate.analysis.reading import load
from aggregate.analysis.scaling import scalings
from aggregate.analysis.sections import sections
from aggregate.analysis.summary import summary
from aggregate.render import figures, tables
from aggregate.tests.factory import ALL_PHASES, FULL_PHASES, as_runs, make_result, save

PARALLEL = ("conformance", "ceiling", "training", "convergence")


def ranks(size: int, kind: str = "strong", speed: float = 20.0, **more: Any) -> dict[str, Any]:
    return make_result(phases=PARALLEL, speed=speed, world_size=size, scaling=kind, repeats=3, **more)


def alone(**more: Any) -> dict[str, Any]:
    return make_result(phases=ALL_PHASES, speed=11.0, repeats=3, **more)


def test_numbers_of_ranks_are_never_merged() -> None:
    runs = as_runs(alone(), ranks(2), ranks(4), ranks(2, "weak", 10.0), ranks(2, number=1))
    assert [(len(run.results), run.ranks.words) for run in runs] == [
        (1, ""), (2, "2 ranks, strong"), (1, "2 ranks, weak"), (1, "4 ranks, strong")
    ]  # fmt: skip
    (section,) = sections(runs)
    table = tables.build("", "", section.runs, summary(runs), ["training_throughput"])
    assert table.rows[0].label == "Training throughput, batch 32 (a rank, where weak)"
    assert set(summary(runs)["world_size"]) == {1, 2, 4}


def test_efficiency_is_the_speed_up_by_the_ranks() -> None:
    each_kind = scalings(as_runs(alone(), ranks(2), ranks(4, speed=33.0), ranks(2, "weak", 10.0)))
    assert [(each.alone.letter, each.kind, [run.ranks.size for run in each.runs]) for each in each_kind] == [
        ("A", "strong", [2, 4]), ("A", "weak", [2])
    ]  # fmt: skip
    efficiencies = [point.efficiency for each in each_kind for point in each.points]
    assert [middle for middle, _, _ in efficiencies] == pytest.approx([20 / 22, 33 / 44, 10 / 11], rel=0.01)
    assert all(low < middle < high for middle, low, high in efficiencies)


def test_one_process_each_compares_in_images_not_in_steps() -> None:
    runs = as_runs(make_result(speed=11.0), make_result(speed=10.0, world_size=2, scaling="weak"))
    ((point,),) = (each.points for each in scalings(runs))
    assert point.efficiency[0] == pytest.approx(10 / 11, rel=0.01)
    assert "one process" in point.speedup.reason


def test_the_table_says_what_the_ranks_cost_and_that_they_share_cores() -> None:
    (each,) = scalings(as_runs(alone(), ranks(2)))
    table = tables.of_scaling(each)
    cells = {row.label.strip(): row.cells[0].text for row in table.rows}
    assert (cells["Ranks"], cells["Global batch"], cells["Communication a step"]) == ("2", "32", "10.0")
    assert (cells["behind the backward pass"], cells["Slowest rank against the fastest"]) == ("4.00", "0.2")
    assert cells["Connected by"] == "torch.distributed, gloo, 1 host"
    assert "ranks on one machine share its cores, so that 50 % is all there is to have" in table.notes


def test_no_table_without_one_process_to_compare_with() -> None:
    runs = as_runs(ranks(2), ranks(4))
    assert scalings(runs) == []
    assert "No chart" in next(p for p in figures.draw(sections(runs)[0]) if p.name == "scaling").missing


def test_what_only_rank_0_knows_is_withheld_or_marked() -> None:
    one, two = as_runs(make_result(phases=FULL_PHASES), ranks(2))
    for metric in ("energy_per_image", "cost_full", "electricity_full"):
        assert not one.figures[metric, None][0].reason
        assert "rank 0 only" in two.figures[metric, None][0].reason
        assert math.isnan(two.figures[metric, None][0].value)
    assert "of rank 0" in two.figures["power", None][0].notes
    assert "of rank 0" in two.figures["peak_memory", None][0].notes


def test_efficiency_against_the_ceiling_counts_every_device() -> None:
    (one,), (two,) = as_runs(alone()), as_runs(ranks(2, speed=22.0))
    half = two.figures["efficiency", None][0].value
    assert half == pytest.approx(one.figures["efficiency", None][0].value / 2, rel=0.1)  # the ceiling doubled too


@pytest.mark.parametrize("scaled", ["strong", "weak"])
def test_valid_results_of_ranks_are_read(tmp_path: Path, scaled: str) -> None:
    loaded = load([save(ranks(2, scaled), tmp_path)])
    assert not loaded.problems
    assert loaded.results


def forget_parallel(result: dict[str, Any]) -> None:
    result["parallel"] = None


def fewer_ranks(result: dict[str, Any]) -> None:
    result["parallel"]["world_size"] = 3


def other_batch(result: dict[str, Any]) -> None:
    result["parallel"]["scaling"] = "weak"


def other_rank_0(result: dict[str, Any]) -> None:
    training(result)["parallel"]["rank_window_blocks"].reverse()


def other_steps(result: dict[str, Any]) -> None:
    training(result)["parallel"]["rank_window_blocks"][1].pop()


def communication_in_ms(result: dict[str, Any]) -> None:
    training(result)["parallel"]["communication_seconds"] = 1e4


def more_hidden_than_there_is(result: dict[str, Any]) -> None:
    training(result)["parallel"]["overlapped_seconds"] = 0.02


def training(result: dict[str, Any]) -> dict[str, Any]:
    measured: dict[str, Any] = next(o["measurements"] for o in result["phases"] if o["phase"] == "training")
    return measured


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (forget_parallel, "parallel"), (fewer_ranks, "parallel/rank_window_blocks"), (other_batch, "batch_size"),
        (other_rank_0, "parallel/rank_window_blocks/0"), (other_steps, "parallel/rank_window_blocks"),
        (communication_in_ms, "parallel/communication_seconds"),
        (more_hidden_than_there_is, "parallel/overlapped_seconds"),
    ],
)  # fmt: skip
def test_ranks_that_contradict_each_other(tmp_path: Path, change: Any, pointer: str) -> None:
    result = ranks(2)
    change(result)
    assert f"/phases/2/measurements/{pointer}" in {p.pointer for p in load([save(result, tmp_path)]).problems}
