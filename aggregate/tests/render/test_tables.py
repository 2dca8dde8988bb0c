"""Tables as every form of the report has them."""

import re

import pytest

from aggregate.analysis.registry import METRIC
from aggregate.render import tables
from aggregate.render.tables import MISSING, Table, number
from aggregate.tests.factory import make_result, table_of


def cells(table: Table, label: str) -> list[tuple[str, list[str]]]:
    """Text and footnotes of a row's cells."""
    (row,) = [row for row in table.rows if row.label == label]
    return [(cell.text, [table.notes[mark - 1] for mark in cell.marks]) for cell in row.cells]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.6, "12,346"),
        (3430.4, "3,430"),
        (-31.4159, "-31.42"),
        (9.99999, "10.00"),
        (0.00123, "0.001230"),
        (1e-7, "1e-07"),
        (2e12, "2e+12"),
        (5e-324, "4.94e-324"),
    ],
)
def test_numbers_are_shown_to_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_percentages_have_one_decimal_and_no_negative_zero() -> None:
    drift = METRIC["drift"]
    assert tables.shown(-0.04, drift) == "0.0"
    assert tables.shown(-12.34, drift) == "-12.3"


def test_missing_is_a_dash_with_its_reason() -> None:
    table = table_of(make_result(failed={("latency", 0): "killed by SIGKILL"}), make_result("mlx"))
    (mlx, no_note), (missing, reason) = cells(table, "Latency, median")
    assert float(mlx) > 0
    assert no_note == []
    assert (missing, reason) == (MISSING, ["the latency phase failed: killed by SIGKILL"])


def test_batches_that_only_some_runs_tried() -> None:
    stopped = make_result("tf-cuda", largest_batch=4)
    next(o for o in stopped["phases"] if o["phase"] == "inference")["measurements"]["stopped"] = (
        "batch 8: out of memory"
    )
    failed = make_result("torch-ipex", failed={("inference", 0): "crashed"})
    table = table_of(make_result("mlx", largest_batch=8), stopped, failed)
    (large, _), (dash, why), (other_dash, other) = cells(table, "Inference, batch 8")
    assert float(large) > 0
    assert (dash, why) == (MISSING, ["not tried after batch 8: out of memory"])
    assert (other_dash, other) == (MISSING, ["the inference phase failed: crashed"])


def test_a_batch_beyond_a_runs_profiles_names_them_all() -> None:
    quick, full = (make_result("tf-cuda", largest_batch=4, number=n, repeats=n) for n in (1, 2))
    table = table_of(make_result("mlx", largest_batch=8), quick, full)
    _, dash = cells(table, "Inference, batch 8")
    assert dash == (MISSING, ["profile quick and full ends at a smaller batch"])


def test_a_failed_repeat_does_not_hide_the_others() -> None:
    table = table_of(make_result(repeats=3, failed={("inference", 0): "crashed", ("training", 0): "crashed"}))
    ((batch, _),) = cells(table, "Inference, batch 8")
    ((throughput, notes),) = cells(table, "Training throughput, batch 32")
    assert float(batch) > 0
    assert float(throughput) > 0
    assert notes == ["1 of 3 repeats gave no value: the training phase failed: crashed"]


def test_equal_notes_share_a_number() -> None:
    table = table_of(make_result(), make_result(engine="stock"))
    assert len(set(table.notes)) == len(table.notes)
    first, second = next(row for row in table.rows if row.label.startswith("Peak memory")).cells
    assert first.marks == second.marks


def test_synthetic_data_is_marked_beside_the_run() -> None:
    table = table_of(make_result("mlx"), make_result(data="synthetic"))
    (real, _), (synthetic, lines) = table.headers
    assert not real.marks
    assert "synthetic stand-in" in table.notes[synthetic.marks[0] - 1]
    assert lines[-1] == "quick · synthetic"


def test_range_of_repeats_only_where_there_are_some() -> None:
    assert "  lowest to highest repeat" not in [row.label for row in table_of(make_result()).rows]
    (several, _), (single, _) = cells(
        table_of(make_result("mlx", repeats=3), make_result()), "  lowest to highest repeat"
    )
    assert re.fullmatch(r"\d+\.\d to \d+\.\d", several)
    assert single == MISSING
