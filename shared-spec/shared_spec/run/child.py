"""Starting the one process of a phase, watching over it, and telling why it ended."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psutil

from shared_spec.errors import UserError
from shared_spec.machine import memory
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Progress
from shared_spec.platform import Platform
from shared_spec.run.events import Listener, last_words
from shared_spec.run.job import EXIT_USER_ERROR, Failure, Job


@dataclass(frozen=True)
class Limits:
    """What a phase process may take before it is stopped; None: as much as it likes."""

    memory_bytes: float | None = None
    seconds: float | None = None


UNLIMITED = Limits()
TOO_SLOW = "stopped: it took longer than it may"
"""How the reason begins of a phase that has passed its limit of time; whoever set the limit adds which."""


@dataclass(frozen=True)
class Ended:
    """How a phase process ended.

    Attributes:
        status: exit status, negative for the signal that killed it.
        over_memory, over_time: it was stopped for breaking a limit.
        out_of_memory_kill: the system's out-of-memory killer was at work meanwhile.
    """

    status: int
    over_memory: bool = False
    over_time: bool = False
    out_of_memory_kill: bool = False

    def failure(self, words: str) -> Failure:
        """Why it left no outcome; `words` are the last of its log."""
        if self.over_memory:
            reason = "stopped: it took more memory than the share of this machine's it may have"
            return Failure("out_of_memory", reason)
        if self.over_time:
            return Failure("too_slow", TOO_SLOW)
        if self.out_of_memory_kill:
            return Failure("out_of_memory", "killed by the system's out-of-memory killer")
        if self.status < 0:
            return Failure("killed", f"the process was killed by {signal.Signals(-self.status).name}")
        return Failure("fault", f"the process ended with status {self.status} and no outcome; last words: {words}")


def run_child(platform: Platform, job: Job, progress: Progress, limits: Limits = UNLIMITED) -> Failure | None:
    """Run one phase process to its end, passing its progress on; it dies with this process, whatever happens.

    Returns:
        None where it has left an outcome, otherwise why it has not.

    Raises:
        UserError: it cannot run at all here.
    """
    ended = _run(platform, job, progress, limits)
    if ended.status == EXIT_USER_ERROR:
        raise UserError(last_words(job.log))
    return None if job.outcome.status else ended.failure(last_words(job.log))


def _run(platform: Platform, job: Job, progress: Progress, limits: Limits) -> Ended:
    replace(job, started=monotonic()).write()
    kills = _out_of_memory_kills()
    reading, writing = os.pipe()
    command = [sys.executable, "-m", platform.package, "_phase", str(job.file), str(writing)]
    with job.log.open("w") as output, os.fdopen(reading, "rb", buffering=0) as events:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=(writing,),
            env={**os.environ, **job.worker_env},
        )  # fmt: skip
        os.close(writing)
        guard = _Guard(process, limits)
        listener = Listener(progress)
        try:
            _listen(events, process, listener)
            status = process.wait()
        finally:
            kill_family(process)  # where an exception, Ctrl-C among them, came before the end
            process.communicate()
    by_the_kernel = status == -signal.SIGKILL and _out_of_memory_kills() > kills
    return Ended(status, guard.over_memory, guard.over_time, by_the_kernel)


def _listen(events: IO[bytes], process: "subprocess.Popen[bytes]", listener: Listener) -> None:
    """Hear all that a process tells until it has ended: what it has started may keep its end of the pipe open longer."""
    while True:
        ended = process.poll() is not None
        while select.select([events], [], [], 0 if ended else 0.2)[0]:
            if not (data := events.read(1 << 16)):
                return
            listener.hear(data)
        if ended:
            return


def kill_family(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it has started."""
    doomed: list[psutil.Process] = []
    if process.poll() is None:
        with contextlib.suppress(psutil.Error, OSError):
            doomed = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in doomed:
        with contextlib.suppress(psutil.Error, OSError):
            child.kill()


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
    """Stops a process that breaks its limits; looks ten times a second, from outside. No thread where there are none."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        super().__init__(daemon=True)
        self.process, self.limits = process, limits
        self.over_memory = self.over_time = False
        if limits != UNLIMITED:
            self.start()

    def run(self) -> None:
        started = monotonic()
        try:
            watched = psutil.Process(self.process.pid)
        except psutil.Error:
            return
        while self.process.poll() is None:
            taken = _taken(watched) if self.limits.memory_bytes is not None else 0
            self.over_memory = self.limits.memory_bytes is not None and taken > self.limits.memory_bytes
            self.over_time = self.limits.seconds is not None and monotonic() - started > self.limits.seconds
            if self.over_memory or self.over_time:
                kill_family(self.process)
                return
            time.sleep(0.1)


def _taken(process: psutil.Process) -> int:
    """What a process takes of the machine's memory, bytes; 0 where it has just ended, or the system does not tell."""
    try:
        return memory.taken_bytes(process)
    except (psutil.Error, OSError):
        return 0
