"""Starting a phase process, watching over it, and telling why it ended."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psutil

from shared_spec.measure.blocks import Progress
from shared_spec.platform import Platform
from shared_spec.results.format import FailureKind
from shared_spec.run.job import Job


@dataclass(frozen=True)
class Limits:
    """What a phase process may take before it is stopped; None: as much as it likes."""

    memory_bytes: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a phase process ended.

    Attributes:
        status: exit status, negative for the signal that killed it.
        over_memory, over_time: it was stopped for breaking a limit.
        out_of_memory_kill: the system's out-of-memory killer was at work meanwhile.
    """

    status: int
    over_memory: bool
    over_time: bool
    out_of_memory_kill: bool

    @property
    def kind(self) -> FailureKind:
        """Of which kind the failure is where it ended without an outcome."""
        if self.over_memory or self.out_of_memory_kill:
            return "out_of_memory"
        if self.over_time:
            return "too_slow"
        return "killed" if self.status < 0 else "fault"

    def describe(self, log: Path) -> str:
        """Why it ended without an outcome, in words."""
        if self.over_memory:
            return "stopped: it took more memory than the share of this machine's it may have"
        if self.over_time:
            return "stopped: it took longer than a try may"
        if self.out_of_memory_kill:
            return "killed by the system's out-of-memory killer"
        if self.status < 0:
            return f"the process was killed by {signal.Signals(-self.status).name}"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return (
            f"the process ended with status {self.status} and no outcome; last words: {words[-1] if words else 'none'}"
        )


def _out_of_memory_kills() -> int:
    """How often the Linux kernel has killed for want of memory since boot, control groups included; 0 elsewhere."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


class _Guard(threading.Thread):
    """Stops a process that breaks its limits; looks ten times a second, from outside."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        super().__init__(daemon=True)
        self.process, self.limits = process, limits
        self.over_memory = self.over_time = False
        self.start()

    def run(self) -> None:
        started, watched = time.monotonic(), psutil.Process(self.process.pid)
        while self.process.poll() is None:
            try:
                taken = watched.memory_info().rss
            except psutil.Error:
                return
            self.over_memory = self.limits.memory_bytes is not None and taken > self.limits.memory_bytes
            self.over_time = self.limits.seconds is not None and time.monotonic() - started > self.limits.seconds
            if self.over_memory or self.over_time:
                self.process.kill()
                return
            time.sleep(0.1)


def _follow(events: IO[str], progress: Progress) -> None:
    for line in events:
        try:
            event = json.loads(line)
            done, text = float(event["done"]), str(event["text"])
            figures = {str(name): float(value) for name, value in event["figures"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a line cut short by a kill
        progress(done, text, **{name: value for name, value in figures.items() if math.isfinite(value)})


def run_job(platform: Platform, job: Job, job_path: Path, log: Path, progress: Progress, limits: Limits) -> Ended:
    """Run one phase process to its end, passing its progress on; it dies with this process, whatever happens."""
    replace(job, started=time.monotonic()).write(job_path)
    kills = _out_of_memory_kills()
    reading, writing = os.pipe()
    command = [sys.executable, "-m", platform.package, "_phase", str(job_path), str(writing)]
    with log.open("w") as output, os.fdopen(reading) as events:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=(writing,),
            env={**os.environ, **job.worker_env},
        )  # fmt: skip
        os.close(writing)
        guard = _Guard(process, limits) if limits != Limits() else None
        try:
            _follow(events, progress)
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    return Ended(
        status,
        over_memory=guard is not None and guard.over_memory,
        over_time=guard is not None and guard.over_time,
        out_of_memory_kill=status == -signal.SIGKILL and _out_of_memory_kills() > kills,
    )
