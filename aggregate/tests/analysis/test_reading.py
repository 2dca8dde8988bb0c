"""Untrusted files in, valid results and every problem out."""

import copy
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregate.analysis import reading
from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import Loaded, Problem, clean, load
from aggregate.render import csv, report
from aggregate.tests.factory import PRICES, leaves, make_result, outcome, save
from shared_spec.results import format
from shared_spec.results.upgrade import OLDER_VERSIONS

VALID = make_result(repeats=2)


SMALL = make_result(phases=("conformance", "ceiling", "training", "max_batch", "convergence"))


def only_problem(loaded: Loaded) -> Problem:
    assert not loaded.results
    assert len(loaded.problems) == 1, loaded.problems
    return loaded.problems[0]


def test_valid_file(tmp_path: Path) -> None:
    loaded = load([save(VALID, tmp_path)])
    assert not loaded.problems
    (result,) = loaded.results
    assert result.file == "result.json"
    assert result.content == format.parse(VALID)
    assert result.spec.fingerprint == VALID["spec"]["fingerprint"]
    assert len(result.outcomes("training")) == 2


def test_folder_means_its_visible_json_files(tmp_path: Path) -> None:
    save(VALID, tmp_path, "a.json")
    save({}, tmp_path, ".hidden.json")
    save({}, tmp_path, "notes.txt")
    (tmp_path / ".runs" / "key").mkdir(parents=True)
    save({}, tmp_path / ".runs" / "key", "00-training-0.json")
    loaded = load([tmp_path])
    assert [result.file for result in loaded.results] == ["a.json"]
    assert not loaded.problems


def test_same_file_twice_is_read_once(tmp_path: Path) -> None:
    path = save(VALID, tmp_path)
    loaded = load([path, tmp_path, path])
    assert len(loaded.results) == 1
    assert not loaded.problems


def test_the_samples_of_a_run_under_another_name_are_no_second_run(tmp_path: Path) -> None:
    renamed = {**copy.deepcopy(VALID), "run_id": "f" * 16}
    loaded = load([save(VALID, tmp_path, "a.json"), save(renamed, tmp_path, "b.json")])
    assert [result.file for result in loaded.results] == ["a.json"]
    assert [(p.pointer, "the very samples of a.json" in p.message) for p in loaded.problems] == [("/phases", True)]


def test_copy_of_a_run_is_no_second_run(tmp_path: Path) -> None:
    loaded = load([save(VALID, tmp_path, "a.json"), save(VALID, tmp_path, "b.json")])
    assert [result.file for result in loaded.results] == ["a.json"]
    assert loaded.problems[0].pointer == "/run_id"
    assert "a.json" in loaded.problems[0].message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (json.dumps(SMALL).encode()[:-100], "truncated"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
        (b"[]", "is not of type 'object'"),
        (b'"text"', "is not of type 'object'"),
        (b'{"schema_version": "3.0"}', "this program reads 1.0 and 1.1 and 1.2 and 2.0"),
    ],
)
def test_what_is_no_result(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    problem = only_problem(load([path]))
    assert problem.file == str(path)
    assert message in problem.message


def test_results_of_older_versions_are_read(tmp_path: Path) -> None:
    loaded = load([save(SMALL | {"schema_version": version}, tmp_path) for version in OLDER_VERSIONS])
    assert not loaded.problems
    assert [result.content.schema_version for result in loaded.results] == [format.SCHEMA_VERSION]


def test_packed_results_are_read_beside_plain_ones(tmp_path: Path) -> None:
    other = make_result("mlx")
    packed, plain = tmp_path / "a.json.gz", save(other, tmp_path, "b.json")
    packed.write_bytes(gzip.compress(json.dumps(VALID).encode()))
    loaded = load([tmp_path])
    assert [result.file for result in loaded.results] == ["a.json.gz", "b.json"]
    assert not loaded.problems
    assert [result.content for result in loaded.results] == [format.parse(VALID), format.parse(other)]
    assert load([packed, plain]).results == loaded.results


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"{}", "not what gzip has packed"),
        (gzip.compress(b"{}", mtime=0)[:-4], "not what gzip has packed"),
        (gzip.compress(b"{}", mtime=0)[:12] + b"\xff" * 12, "not what gzip has packed"),
        (gzip.compress(b"\xff", mtime=0), "not UTF-8"),
        (gzip.compress(b" " * (reading.MAX_BYTES + 1), mtime=0), "is larger than the 64 MiB"),
    ],
)
def test_packed_files_that_are_no_results(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "bad.json.gz").write_bytes(data)
    assert message in only_problem(load([tmp_path])).message


def test_deep_inside_a_valid_envelope(tmp_path: Path) -> None:
    deep: Any = 0
    for _ in range(900):
        deep = {"a": deep}
    result = copy.deepcopy(SMALL)
    result["profile"]["content"] = deep
    assert "nested too deeply" in only_problem(load([save(result, tmp_path)])).message


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read (No such file" in only_problem(load([tmp_path / "missing.json"])).message
    assert "File name too long" in only_problem(load(["x" * 5000])).message
    assert "matches no file" in only_problem(load(["nowhere/*.json"])).message
    assert "without *.json files" in only_problem(load([tmp_path])).message
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert "not a regular file" in only_problem(load([pipe])).message
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    assert "is larger than" in only_problem(load([save(VALID, tmp_path)])).message


def test_every_problem_of_every_file_and_the_good_ones_still_load(tmp_path: Path) -> None:
    first, second = copy.deepcopy(SMALL), copy.deepcopy(SMALL)
    first["precision"] = "fp8"
    del first["engine"]
    outcome(first, "training")["measurements"]["window_blocks"][0] = [0, -1.0]
    second["surprise"] = 1
    loaded = load([save(first, tmp_path, "1.json"), save(second, tmp_path, "2.json"), save(VALID, tmp_path, "3.json")])
    assert [result.file for result in loaded.results] == ["3.json"]
    pointers = {(Path(problem.file).name, problem.pointer) for problem in loaded.problems}
    window = f"/phases/{first['phases'].index(outcome(first, 'training'))}/measurements/window_blocks/0"
    assert pointers == {
        ("1.json", "/precision"),
        ("1.json", "/"),
        ("1.json", f"{window}/0"),
        ("1.json", f"{window}/1"),
        ("2.json", "/"),
    }


def test_problems_beyond_a_bound_are_counted(tmp_path: Path) -> None:
    result = copy.deepcopy(SMALL)
    result["warnings"] = [1] * (reading.MAX_PROBLEMS + 23)
    problems = load([save(result, tmp_path)]).problems
    assert len(problems) == reading.MAX_PROBLEMS + 1
    assert problems[-1].message == "has 23 more problems"


def test_a_float_that_overflows_is_found(tmp_path: Path) -> None:
    path = save(SMALL, tmp_path)
    path.write_text(path.read_text().replace('"load_average_1min": 0.3', '"load_average_1min": 1e999'))
    assert "too large" in only_problem(load([path])).message


HOSTILE = "\x1b[31mred\x07\ud800\u202eright\nnext\tword"


def test_texts_cannot_steer_a_terminal(tmp_path: Path) -> None:
    assert clean(HOSTILE).isprintable()
    assert clean("one\n two\t three ") == "one two three"
    clean(HOSTILE).encode()
    good, bad = make_result(warnings=[HOSTILE], device_name=HOSTILE), copy.deepcopy(SMALL)
    bad[HOSTILE] = HOSTILE
    loaded = load([save(good, tmp_path, "good.json"), save(bad, tmp_path, "bad\x1b[2J.json")])
    assert loaded.results[0].content.warnings[0].isprintable()
    assert loaded.problems
    assert all(str(problem).isprintable() for problem in loaded.problems)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
) | st.sampled_from([0, -1, 1e-320, 1e308, 10**400, "<script>", "$x^{", "=1+1", HOSTILE, 1.0, 2**53])  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(leaves(SMALL)), value=JSON_VALUES)
def test_no_value_anywhere_raises(tmp_path: Path, path: tuple[str | int, ...], value: Any) -> None:
    """Whatever stands in one place of a result: it is refused with a reason, or shown."""
    result = copy.deepcopy(SMALL)
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    loaded = load([save(result, tmp_path)])
    assert loaded.results or loaded.problems
    if loaded.results:
        comparison = compare(loaded.results, loaded.problems, PRICES)
        report.as_text(comparison, [[] for _ in comparison.sections], "markdown").encode()
        csv.page(comparison.summary).encode()
