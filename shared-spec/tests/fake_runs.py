"""Whole runs of the fake platform through the real command line, and what becomes of them."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from fake_platform.backend import PLATFORM, cpu_info

from shared_spec import cli
from shared_spec import files as shared_files

HERE = Path(__file__).parent


PHASES = "ceiling,training,latency,inference"


def environment_of(**env: str) -> dict[str, str]:
    """The environment of processes that find the fake platform, and do not compile every module anew."""
    python_path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "", **env}


def command(*words: object, **env: str) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "fake_platform", *map(str, words)], environment_of(**env)


def fake(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: where that is the point."""
    line, environment = command(*words, **env)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def here(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """The same command line with this process as the parent: its phases have processes of their own all the same."""
    line, out, err = [*map(str, words)], io.StringIO(), io.StringIO()
    # What the framework's environment is entered for has no effect on the fake one.
    environment = environment_of(DEIT_BENCH_WORKER="1", **env)
    with (
        patch.dict(os.environ, environment),
        patch("cpuinfo.get_cpu_info", cpu_info),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.group(PLATFORM).main(line, prog_name="fake")
    status = ended.value.code
    return subprocess.CompletedProcess(line, int(status or 0), out.getvalue(), err.getvalue())


def asked(spec_file: Path, out: Path, phases: str, profile: str = "quick") -> tuple[object, ...]:
    """Words that run `phases` on the synthetic stand-in."""
    return (
        "run", "--spec", spec_file, "--profile", profile, "--data", "synthetic", "--out", out, "--phases", phases,
    )  # fmt: skip


def quick(
    spec_file: Path, out: Path, *more: object, phases: str = PHASES, **env: str
) -> subprocess.CompletedProcess[str]:
    return here(*asked(spec_file, out, phases), *more, **env)


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


def wait_for(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)
    return value


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, in its own session and with its output kept; it goes on."""
    line, environment = command(*words, **env)
    return subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background are started deaf to it
    )  # fmt: skip


def start_hanging(spec_file: Path, out: Path, *more: object) -> tuple[subprocess.Popen[str], int]:
    """A run whose training phase hangs; returns it and the phase's process id once ceiling is done."""
    parent = start(*asked(spec_file, out, "ceiling,training,latency"), *more, FAKE_FAULT="hang:3")
    return parent, wait_for(lambda: list(out.glob(".runs/*/**/02-training-0.job")) and phase_process(parent.pid))


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def phase_process(parent: int) -> int | None:
    """The process id of the phase under way; the parent also asks git and the like short questions."""
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):
            if "_phase" in child.cmdline():
                return int(child.pid)
    return None
