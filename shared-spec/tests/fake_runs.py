"""Whole runs of the fake platform through the real command line, and what becomes of them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from shared_spec import files as shared_files

HERE = Path(__file__).parent


PHASES = "ceiling,training,latency,inference"


def command(*words: object, **env: str) -> tuple[list[str], dict[str, str]]:
    python_path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return [sys.executable, "-m", "fake_platform", *map(str, words)], {**os.environ, "PYTHONPATH": python_path, **env}


def fake(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(*words, **env)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def quick(spec_file: Path, out: Path, *more: object, **env: str) -> subprocess.CompletedProcess[str]:
    return fake(
        "run", "--spec", spec_file, "--profile", "quick", "--data", "synthetic", "--out", out, "--phases", PHASES,
        *more, **env,
    )  # fmt: skip


def only_result(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*.json")
    result: dict[str, Any] = shared_files.read(path)
    return result


def change_record(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the record of the one unfinished run in `out` say something else."""
    (path,) = out.glob(".runs/*/run.json")
    record = shared_files.read(path)
    change(record)
    shared_files.write(path, record)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)


def start_hanging(spec_file: Path, out: Path, *more: object) -> tuple[subprocess.Popen[bytes], int]:
    """A run whose training phase hangs; returns it and the phase's process id once ceiling is done."""
    line, environment = command(
        "run", "--spec", spec_file, "--profile", "quick", "--data", "synthetic", "--out", out, "--phases", PHASES, *more,
        FAKE_FAULT="hang:3",
    )  # fmt: skip
    parent = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(out.glob(".runs/*/**/01-training-0.job")) and children(parent.pid))
    return parent, children(parent.pid)[0]


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def running(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def phase_process(parent: int) -> int | None:
    """The process id of the phase under way; the parent also asks git and the like short questions."""
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if "_phase" in child.cmdline():
                return int(child.pid)
    return None
