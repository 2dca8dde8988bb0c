"""`make bench`: which result the report is asked to show as this machine's own."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/bash
# Stands for the make that bench calls: a run that writes a result, or fails, and a report that says what it is asked.
case "$*" in
  *bench-*) [ -z "$WRITES" ] || echo {} > "$WRITES"; exit $STATUS;;
  *) printf 'asked: %s\\n' "$@";;
esac
"""


def bench(folder: Path, writes: str, status: int) -> subprocess.CompletedProcess[str]:
    stand_in = folder / "make"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    results = folder / "my results"
    results.mkdir(exist_ok=True)
    (results / "zz-of-another-machine.json").write_text("{}")
    env = {"PATH": "/usr/bin:/bin", "WRITES": str(results / writes) if writes else "", "STATUS": str(status)}
    command = ["make", "-s", "bench", f"MAKE={stand_in}", f"RESULTS={results}", "PLATFORM=ipex"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("writes", "status", "mine"),
    [("new.json", 0, "my results/new.json"), ("new.json.gz", 0, "new.json.gz"), ("", 2, "")],
)
def test_the_result_that_the_run_wrote_is_shown_and_no_other(
    tmp_path: Path, writes: str, status: int, mine: str
) -> None:
    done = bench(tmp_path, writes, status)
    (asked,) = (line for line in done.stdout.splitlines() if "MINE=" in line)
    assert asked.endswith(f"{mine}") if mine else asked == "asked: MINE="
    assert (done.returncode == 0) == (status == 0)
