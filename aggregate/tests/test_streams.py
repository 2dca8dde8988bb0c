"""`python -m aggregate` where its words go: logs, pipes whose reader leaves, full disks, other encodings."""

import errno
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from aggregate import __version__
from aggregate.streams import EXIT_CANNOT_WRITE, EXIT_NO_READER
from aggregate.tests.factory import make_result, save

ROOT = Path(__file__).parents[2]
ENGINES = 6
"""Columns enough for a table to be wider than 80."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results without anything to draw, so that a report is quickly made."""
    folder = tmp_path_factory.mktemp("results")
    for i in range(ENGINES):
        save(make_result(engine=f"engine-{i}", phases=["conformance"], number=i), folder, f"{i}.json")
    return folder


def run(
    *arguments: object, stdin: bytes = b"", stdout: int | IO[bytes] = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """The real command line."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS", "NO_COLOR")}
    return subprocess.run(
        [sys.executable, "-m", "aggregate", *map(str, arguments)], cwd=ROOT, env={**kept, **env}, input=stdin,
        stdout=stdout, stderr=subprocess.PIPE, timeout=120, check=False,
    )  # fmt: skip


def test_the_version_is_said() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.decode().split()[-1]) == (0, __version__)


def test_force_color_makes_no_terminal_of_a_log(results: Path, tmp_path: Path) -> None:
    done = run(results, "--details", "--out", tmp_path, FORCE_COLOR="1", TERM="xterm-256color")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"\x1b\[[0-9;?]*([A-Za-z])", text)) <= {"m"}
    assert any(all(f"engine-{i}" in line for i in range(ENGINES)) for line in text.splitlines()), text


def test_an_ascii_log_and_a_latin_1_path_end_nothing(results: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/r\xe9sultats"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    for i in range(2):
        Path(os.fsdecode(folder), f"{i}.json").write_bytes((results / f"{i}.json").read_bytes())
    Path(os.fsdecode(folder), "bad.json").write_bytes(b"{}")
    done = run(
        os.fsdecode(folder), "--out", os.fsdecode(folder + b"/report"), PYTHONIOENCODING="ascii", LC_ALL="C",
        PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"bad.json" in done.stderr
    assert done.stdout.isascii()
    assert b"--details" in done.stdout
    assert os.path.exists(folder + b"/report/index.html")
    assert run("check", os.fsdecode(folder + b"/0.json"), LC_ALL="C").returncode in (0, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_full_disk_behind_standard_output_is_a_sentence(results: Path, tmp_path: Path, form: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run(results, "--out", tmp_path, "--format", form, stdout=full)
    assert done.returncode == EXIT_CANNOT_WRITE
    assert b"Traceback" not in done.stderr
    assert f"Standard output cannot be written to ({os.strerror(errno.ENOSPC)})." in done.stderr.decode()


@pytest.mark.parametrize("arguments", [("check",), ("--format", "csv")])
def test_a_reader_who_has_left_ends_it_quietly(results: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    out = () if arguments == ("check",) else ("--out", tmp_path)
    try:
        done = run(*arguments, results / "0.json", *out, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == EXIT_NO_READER
    assert done.stderr == b""


def test_head_gets_its_lines_and_nothing_is_said(results: Path, tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m aggregate '{results}' --out '{tmp_path}' | head -n 1; echo \"${{PIPESTATUS[0]}}\""
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    first, status = done.stdout.splitlines()
    assert first.strip()
    assert status in ("0", str(EXIT_NO_READER))
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_no_streams_at_all(results: Path, tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m aggregate '{results}' --out '{tmp_path}' <&- >&- 2>&-; echo $?"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "0\n"
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_a_file_too(results: Path, tmp_path: Path, pack: object) -> None:
    data = pack((results / "0.json").read_bytes())  # type: ignore[operator]
    done = run("-", results / "1.json", "--out", tmp_path, "--format", "json", stdin=data)
    assert done.returncode == 0, done.stderr
    assert {figure["file"] for figure in json.loads(done.stdout)["figures"]} == {"standard input", "1.json"}
    checked = run("check", "-", stdin=b"{")
    assert checked.returncode == 1
    assert b"standard input: is not valid JSON" in checked.stdout
