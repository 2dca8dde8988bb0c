"""A machine that does not go to sleep in the middle of a run."""

import sys
import time
from pathlib import Path

import psutil
import pytest
from fake_system import System

from shared_spec.run import awake


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def holders() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("kind", "tool", "body"),
    [
        ("darwin", "caffeinate", '[ "$1 $2" = "-i -w" ] || exit 1; while kill -0 "$3"; do read x || exit; done'),
        ("linux", "systemd-inhibit", '[ "$1" = "--what=idle:sleep" ] || exit 1; exec /bin/cat'),
    ],
)
def test_the_systems_tool_is_held_as_long_as_the_run_lasts(system: System, kind: str, tool: str, body: str) -> None:
    system.monkeypatch.setattr(sys, "platform", kind)
    system.program(tool, body)
    said: list[str] = []
    before = len(holders())
    with awake.kept(said.append):
        time.sleep(0.1)
        assert len(holders()) == before + 1
    assert len(holders()) == before
    assert said[0].startswith(f"Kept awake until the run ends ({tool})")


def test_a_tool_that_gets_no_lock_is_told(system: System) -> None:
    system.monkeypatch.setattr(sys, "platform", "linux")
    system.program("systemd-inhibit", "echo 'Failed to connect to bus' >&2; exit 1")
    said: list[str] = []
    with awake.kept(said.append):
        assert not awake.works()
    assert "make sure that this machine does not go to sleep" in said[0]


def test_a_system_without_such_a_tool_has_nothing_to_say(system: System) -> None:
    said: list[str] = []
    with awake.kept(said.append):
        assert awake.tool() is None
    assert said == []
