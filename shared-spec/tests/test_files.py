"""JSON in and out: strict, atomic, compact, packed or not."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_spec import files
from shared_spec.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSON)
def test_what_is_written_is_what_is_read(value: Any) -> None:
    assert files.loads(files.dumps(value)) == value


def test_an_array_of_numbers_is_one_line_and_all_else_has_one_of_its_own() -> None:
    value = {"a": [1, 2.5, None], "rows": [[1, 0.5], [2, 0.25]], "words": ["x", "y"], "of": [{"n": []}], "none": {}}
    assert files.dumps(value).splitlines() == [
        "{",
        ' "a": [1, 2.5, null],',
        ' "rows": [[1, 0.5], [2, 0.25]],',
        ' "words": [',
        '  "x",',
        '  "y"',
        " ],",
        ' "of": [',
        "  {",
        '   "n": []',
        "  }",
        " ],",
        ' "none": {}',
        "}",
    ]


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], {"a": [[float("-inf")]]}])
def test_what_json_has_no_number_for_is_not_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())


def test_a_packed_file_is_smaller_and_the_same(tmp_path: Path) -> None:
    value = {"samples": [0.001 * i for i in range(1000)]}
    for name in ("a.json", "a.json.gz", "again.json.gz"):
        files.write(tmp_path / name, value)
        assert files.read(tmp_path / name) == value
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "again.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").stat().st_size < (tmp_path / "a.json").stat().st_size / 2
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "a.json").read_bytes()


def test_no_more_is_unpacked_than_the_bound_allows(tmp_path: Path) -> None:
    bomb = tmp_path / "a.json.gz"
    bomb.write_bytes(gzip.compress(b"0" * 1_000_000) * 3)  # three members, which count as one file
    assert bomb.stat().st_size < 10_000
    assert len(files.read_bytes(bomb, 3_000_000)) == 3_000_000
    with pytest.raises(UserError, match=r"larger than the 2\.86102 MiB"):
        files.read_bytes(bomb, 2_999_999)
    with pytest.raises(UserError, match="larger than"):
        files.read_bytes(bomb, 1000)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", gzip.compress(b"[1, 2, 3]", mtime=0)[:-4], gzip.compress(b"[1]", mtime=0)[:10] + b"\xff" * 40],
    ids=["nothing", "plain", "cut", "damaged"],
)
def test_what_gzip_has_not_packed_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json\.gz: is not (what gzip has packed|valid JSON)"):
        files.read(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="not a regular file"):
        files.read(tmp_path / "pipe.json")


def test_a_file_that_cannot_be_replaced_whole_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write(path, [1])

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, [2])
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
