"""A heap of malformed and hostile files beside good ones: every one is named, none is compared, nothing is raised."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import MAX_BYTES, load
from aggregate.tests.factory import FULL_PHASES, PRICES, call, leaves, make_result, save

GOOD = make_result("mlx", phases=FULL_PHASES)


TIMED = ("seconds", "joules", "batch_size", "top1", "samples")


def changed(path: tuple[str | int, ...], value: Any) -> bytes:
    result = copy.deepcopy(GOOD)
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(result).encode()


def measured() -> list[tuple[str | int, ...]]:
    """Paths of one of each kind of measured number."""
    paths: dict[tuple[str, ...], tuple[str | int, ...]] = {}
    for i, outcome in enumerate(GOOD["phases"]):
        for path in leaves(outcome):
            if str(path[-1]).endswith(TIMED):
                kind = (outcome["phase"], *(key for key in path if isinstance(key, str)))
                paths.setdefault(kind, ("phases", i, *path))
    return list(paths.values())


def corpus() -> dict[str, bytes]:
    text = json.dumps(GOOD)
    files = {
        "empty": b"", "null": b"null", "list": b"[]", "number": b"1e999", "truncated": text[:-50].encode(),
        "twice": (text + text).encode(), "utf-16": text.encode("utf-16"), "bom": text.encode("utf-8-sig"),
        "latin-1": b'{"a": "\xe9"}', "deep": b"[" * 10_000 + b"]" * 10_000, "deep-objects": b'{"a":' * 10_000,
        "duplicate": text.replace('{"schema_version"', '{"engine": "x", "schema_version"', 1).encode(),
        "newer": text.replace('"1.0"', '"2.0"', 1).encode(), "html": b"<script>alert(1)</script>",
        "nan": text.replace('"resumed": 0', '"resumed": NaN', 1).encode(),
        "infinity": text.replace('"resumed": 0', '"resumed": -Infinity', 1).encode(),
        "long-integer": text.replace('"resumed": 0', '"resumed": ' + "9" * 5000, 1).encode(), "binary": bytes(range(256)),
    }  # fmt: skip
    for path in measured():
        name = "-".join(map(str, path))
        files[f"negative-{name}"] = changed(path, -1)
        files[f"text-{name}"] = changed(path, "<script>alert(1)</script>")
    return files


@pytest.mark.usefixtures("unrendered")
def test_all_of_them_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = corpus()
    assert len(files) >= 60
    for name, data in files.items():
        (tmp_path / f"{name}.json").write_bytes(data)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(3 * MAX_BYTES)  # sparse: 192 MiB that take no room
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    save(GOOD, tmp_path, "good.json")
    loaded = load([tmp_path])
    assert [result.file for result in loaded.results] == ["good.json"]
    named = {Path(problem.file).stem for problem in loaded.problems}
    assert named == {*files, "huge", "folder", "loop"}
    assert all(str(problem).isprintable() for problem in loaded.problems)
    monkeypatch.setattr("aggregate.__main__.load", lambda paths: loaded)
    done = call(tmp_path, "--out", tmp_path / "report", "--format", "csv")
    assert done.exit_code == 1
    assert (tmp_path / "report" / "index.html").read_text().count("<script>") == 1  # the page's own


Kind = tuple[str | int, ...]
"""Path of one kind of number within the outcomes of a phase; "*" stands for any position in a list."""


def kind_of(phase: str, path: tuple[str | int, ...]) -> Kind:
    """Of a row [steps, seconds] the two are different kinds."""
    in_row = len(path) > 1 and isinstance(path[-1], int) and isinstance(path[-2], int)
    general = ["*" if isinstance(key, int) else key for key in path]
    return (phase, *general[:-1], path[-1] if in_row else general[-1])


def numbers() -> list[Kind]:
    """Every kind of number that was measured in GOOD."""
    kinds: dict[Kind, None] = {}
    for outcome in GOOD["phases"]:
        for path in leaves(outcome["measurements"]):
            inner: Any = outcome["measurements"]
            for key in path:
                inner = inner[key]
            if type(inner) in (int, float):
                kinds[kind_of(outcome["phase"], path)] = None
    return list(kinds)


def scaled(value: Any, kind: Kind, factor: float) -> Any:
    """`value` with the numbers at `kind` multiplied; whole ones stay whole."""
    if not kind:
        return (round(value * factor) if isinstance(value, int) else value * factor) if value is not None else None
    key, *rest = kind
    if isinstance(value, dict):
        return {name: scaled(item, tuple(rest), factor) if name == key else item for name, item in value.items()}
    if isinstance(value, list):
        return [scaled(item, tuple(rest), factor) if key in ("*", i) else item for i, item in enumerate(value)]
    return value


ON_TOP = (
    "training_throughput", "full_throughput", "latency_median", "latency_p90", "inference_best", "peak_memory",
    "device_process", "footprint_peak", "host_peak", "target_reached", "time_to_target", "energy_to_target",
    "cost_to_target", "cost_full", "owning_to_target", "owning_full", "electricity_to_target", "electricity_full", "power",
    "energy_per_image",
)  # fmt: skip
"""What the answer and the tables on top are made of."""


def headline(content: dict[str, Any], folder: Path) -> pd.DataFrame | None:
    """The figures of a result's main table; None where it is refused."""
    loaded = load([save(content, folder)])
    if not loaded.results:
        assert loaded.problems
        return None
    summary = compare(loaded.results, loaded.problems, PRICES).summary
    return summary[summary["metric"].isin(ON_TOP)].set_index("metric")


def out_by_a_thousand(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Metrics that are wrong by a factor of a thousand and have no note that they had not before."""
    ratio = (after["value"] / before["value"]).replace([np.inf, -np.inf], np.nan)
    far = ratio[(ratio >= 900) | (ratio <= 1 / 900)].index
    return [metric for metric in far if set(after["notes"][metric]) <= set(before["notes"][metric])]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    figures = headline(GOOD, tmp_path_factory.mktemp("right"))
    assert figures is not None
    return figures


@pytest.mark.parametrize("factor", [1e3, 1e-3])
@pytest.mark.parametrize("kind", numbers(), ids=lambda kind: "-".join(map(str, kind)))
def test_no_figure_is_out_by_a_thousand_and_nobody_told(
    tmp_path: Path, right: pd.DataFrame, kind: Kind, factor: float
) -> None:
    """Numbers of one kind in another unit: refused, marked, or without effect on the main table."""
    changed = copy.deepcopy(GOOD)
    for outcome in changed["phases"]:
        if outcome["phase"] == kind[0]:
            outcome["measurements"] = scaled(outcome["measurements"], kind[1:], factor)
            outcome["seconds"] = 1e8  # a process so long that it gives nothing away
    after = headline(changed, tmp_path)
    assert after is None or out_by_a_thousand(right, after) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(numbers()), st.floats(1e-6, 1e6)), min_size=1, max_size=4))
def test_whatever_is_changed_the_percentiles_are_in_order(tmp_path: Path, changes: list[tuple[Kind, float]]) -> None:
    changed = copy.deepcopy(GOOD)
    for kind, factor in changes:
        for outcome in changed["phases"]:
            if outcome["phase"] == kind[0]:
                outcome["measurements"] = scaled(outcome["measurements"], kind[1:], factor)
    after = headline(changed, tmp_path)
    if after is not None:
        assert after["value"]["latency_p90"] >= after["value"]["latency_median"]
        assert (after["value"].dropna() >= 0).all()
        assert (after["value"].notna() | (after["reason"] != "")).all()
