"""All figures as a spreadsheet gets them."""

import io

import pandas as pd

from aggregate.analysis.summary import COLUMNS, summary
from aggregate.render import csv
from aggregate.tests.factory import as_runs, make_result


def test_csv_comes_back_as_it_was() -> None:
    frame = summary(
        as_runs(make_result(repeats=2, device_name='say "a, b"'), make_result("mlx", failed={("training", 0): "x"}))
    )
    back = pd.read_csv(io.StringIO(csv.page(frame)))
    assert list(back.columns) == list(COLUMNS)
    pd.testing.assert_series_equal(back["value"], frame["value"])
    assert set(back["device_name"]) == {'say "a, b"', "Apple M4 Max"}


def test_csv_holds_no_formula() -> None:
    run = make_result(device_name='=HYPERLINK("http://evil.example")', engine="@SUM(A1)")
    back = pd.read_csv(io.StringIO(csv.page(summary(as_runs(run)))), dtype=str, keep_default_na=False)
    texts = back.drop(columns=["value", "low", "high"])
    assert not texts.apply(lambda column: column.str.startswith(("=", "+", "-", "@"))).to_numpy().any()
    assert pd.api.types.is_float_dtype(pd.to_numeric(back["value"]))
