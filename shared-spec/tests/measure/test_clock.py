"""There is one clock, for all processes of a machine, and nothing else reads time where a result is made."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import shared_spec
from shared_spec.measure.clock import monotonic, utc_now

SOURCES = Path(shared_spec.__file__).parent


def reads_time(node: ast.AST) -> bool:
    """Whether this is a name that tells the time: anything of `time` but sleep, and datetime's present."""
    match node:
        case ast.Attribute(value=ast.Name(id="time"), attr=name):
            return name != "sleep"
        case ast.ImportFrom(module="time" | "timeit") | ast.alias(name="timeit"):
            return True
        case ast.Attribute(attr="now" | "utcnow" | "today"):
            return True
    return False


def test_nothing_else_reads_time() -> None:
    guilty = [
        f"{path.relative_to(SOURCES)}:{node.lineno}"  # type: ignore[attr-defined]
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if reads_time(node)
    ]
    assert [place for place in guilty if not place.startswith(("dev/", "measure/clock.py"))] == []
    assert any(place.startswith("measure/clock.py") for place in guilty)


def test_it_is_monotonic_fine_and_the_systems_own() -> None:
    clock, finest = time.get_clock_info("monotonic"), time.get_clock_info("perf_counter")
    assert clock.monotonic
    assert not clock.adjustable
    assert clock.resolution <= 1e-7
    assert clock.implementation == finest.implementation
    assert abs(monotonic() - time.perf_counter()) < 1


def test_two_processes_of_a_machine_read_the_same_clock() -> None:
    line = "from shared_spec.measure.clock import monotonic; print(monotonic())"
    before = monotonic()
    there = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert before < float(there.stdout) < monotonic()


def test_the_time_of_day_is_in_utc() -> None:
    offset = utc_now().utcoffset()
    assert offset is not None
    assert not offset
