"""A heap of malformed and hostile files beside good ones: every one is named, none is compared, nothing is raised."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aggregate.__main__ import main
from aggregate.reading import MAX_BYTES, load
from aggregate.tests.factory import FULL_PHASES, make_result, save
from aggregate.tests.test_load import leaves

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
    found: dict[tuple[str, ...], tuple[str | int, ...]] = {}
    for i, outcome in enumerate(GOOD["phases"]):
        for path in leaves(outcome):
            if str(path[-1]).endswith(TIMED):
                kind = (outcome["phase"], *(key for key in path if isinstance(key, str)))
                found.setdefault(kind, ("phases", i, *path))
    return list(found.values())


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


def test_all_of_them_at_once(tmp_path: Path) -> None:
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
    done = CliRunner().invoke(main, [str(tmp_path), "--out", str(tmp_path / "report"), "--format", "csv"])
    assert done.exit_code == 1
    assert "<script>" not in (tmp_path / "report" / "index.html").read_text().replace("<script>\nfor (", "")


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_latencies_in_another_unit_are_refused_or_marked(tmp_path: Path, factor: float) -> None:
    """Times a thousand too long exceed the life of their process; a thousand too short no file can give away."""
    result = copy.deepcopy(GOOD)
    latency = next(o for o in result["phases"] if o["phase"] == "latency")
    latency["seconds"] = 60.0
    latency["measurements"]["host_to_host_seconds"] = [
        factor * t for t in latency["measurements"]["host_to_host_seconds"]
    ]
    assert bool(load([save(result, tmp_path)]).problems) is (factor > 1)
