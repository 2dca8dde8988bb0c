"""Starting the ranks of a phase through the engine's own launcher, watching over them, and telling why they ended."""

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import psutil

from shared_spec import files, ranks
from shared_spec.errors import UserError
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Progress
from shared_spec.platform import Platform
from shared_spec.run.child import TOO_SLOW
from shared_spec.run.events import Listener, last_words
from shared_spec.run.job import PARENT_ENV, Failure, Job

GRACE = 3.0
"""Seconds that the other ranks, and the launcher, have to notice that one has ended."""


def run_ranks(platform: Platform, job: Job, progress: Progress, seconds: float | None = None) -> Failure | None:
    """Run one phase in `job.setting.ranks` processes on this host; all have ended when this returns.

    Args:
        seconds: how long they may take; None: as long as they like.

    Returns:
        None where rank 0 has written the outcome, otherwise why it has not.

    Raises:
        UserError: a rank cannot run at all here.
    """
    replace(job, started=monotonic()).write()
    setting = job.setting
    timeout = str(setting.rank_timeout)
    env = {**os.environ, **job.worker_env, ranks.TIMEOUT_ENV: timeout, PARENT_ENV: str(os.getpid())}
    with _pipe() as (pipe, reading), job.log.open("w") as output:
        words = ["-m", platform.package, "_phase", str(job.file), str(pipe)]
        processes = [
            _started(platform, start.arguments, {**env, **start.env}, output)
            for start in platform.launch(setting.ranks, setting.device, words)
        ]
        watch = _Watch(job, reading, processes, progress)
        try:
            watch.until_end(seconds)
        finally:
            watch.kill()
    return None if job.outcome.status else _failure(platform, job, watch)


def _started(
    platform: Platform, arguments: list[str], env: dict[str, str], output: IO[str]
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=output, stderr=output, env=env)
    except OSError as error:
        raise UserError(
            f"--nproc: {Path(arguments[0]).name} cannot be started ({error.strerror}): it is not in this environment; "
            f"run `make setup-{platform.make_target}`."
        ) from error


@contextmanager
def _pipe() -> Iterator[tuple[Path, int]]:
    """A named pipe to read from: launchers pass no descriptors on. The end held open here keeps it from ending.

    It lies where temporary files do: a file system for results need not have pipes.
    """
    with tempfile.TemporaryDirectory(prefix="deit-bench-") as folder:
        path = Path(folder) / "events"
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(path, os.O_WRONLY)
        try:
            yield path, reading
        finally:
            os.close(reading)
            os.close(writing)


class _Watch:
    """Follows the ranks' events until all have ended, or some have and the others do not follow, or nothing moves.

    Attributes:
        statuses: exit statuses of the processes that ended by themselves, by their place among those started.
        stalled: nothing has moved for the timeout.
        over_time: they took longer than they may.
    """

    def __init__(self, job: Job, reading: int, processes: list[subprocess.Popen[bytes]], progress: Progress) -> None:
        self.job, self.reading, self.processes = job, reading, processes
        self.listener = Listener(progress)
        self.statuses: dict[int, int] = {}
        self.stalled = self.over_time = False

    def until_end(self, seconds: float | None = None) -> None:
        """Listen until there is no more to wait for, `seconds` at most."""
        begun = last_event = monotonic()
        failed_since = None
        while not self._all_have_ended():
            if select.select([self.reading], [], [], 0.2)[0] and (data := os.read(self.reading, 1 << 16)):
                last_event = monotonic()
                self.listener.hear(data)
            now = monotonic()
            if failed_since is None and self._one_has_failed():
                failed_since = now
            # The ranks' own watchdogs come first: they know more.
            self.stalled = now - last_event > self.job.setting.rank_timeout + GRACE
            self.over_time = seconds is not None and now - begun > seconds
            if self.stalled or self.over_time or (failed_since is not None and now - failed_since > GRACE):
                return

    def _all_have_ended(self) -> bool:
        statuses = [process.poll() for process in self.processes]
        self.statuses = {i: status for i, status in enumerate(statuses) if status is not None}
        return len(self.statuses) == len(statuses)

    def _one_has_failed(self) -> bool:
        reports = (self.job.rank_report(rank) for rank in range(self.job.setting.ranks))
        return any(self.statuses.values()) or any(report.exists() for report in reports)

    def kill(self) -> None:
        """End all that still runs: launchers, what they started, and ranks whose launcher is gone."""
        doomed = {process.pid: process for process in self._family()}
        for pid in self.listener.pids - doomed.keys():
            with contextlib.suppress(psutil.Error):
                orphan = psutil.Process(pid)
                if str(self.job.file) in orphan.cmdline():  # and not another process that was given its number
                    doomed[pid] = orphan
        for process in doomed.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for started in self.processes:
            started.wait()
            if started.stdin:
                started.stdin.close()
        psutil.wait_procs(list(doomed.values()), timeout=GRACE)

    def _family(self) -> Iterator[psutil.Process]:
        for started in self.processes:
            if started.poll() is None:
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(started.pid)
                    yield from process.children(recursive=True)
                    yield process


def _reports(job: Job) -> dict[int, Failure]:
    """Why ranks have failed, by rank, the first to fail first.

    Raises:
        UserError: a rank cannot run at all here.
    """
    paths = {rank: job.rank_report(rank) for rank in range(job.setting.ranks)}
    there = [rank for rank, path in paths.items() if path.exists()]
    reports = {}
    for rank in sorted(there, key=lambda rank: paths[rank].stat().st_mtime_ns):
        content = files.read(paths[rank])
        if content["kind"] is None:
            raise UserError(content["reason"])
        reports[rank] = Failure(**content)
    return reports


def _death(rank: int, status: int) -> Failure:
    if status < 0:
        return Failure("ranks", f"rank {rank} was killed by {signal.Signals(-status).name}")
    return Failure("ranks", f"rank {rank} ended with status {status}")


def _failure(platform: Platform, job: Job, watch: _Watch) -> Failure:
    """The first cause of a failure: a rank that was killed, else what the first rank to fail has reported."""
    if watch.over_time:
        return Failure("too_slow", TOO_SLOW)
    reports = _reports(job)
    deaths = list(watch.statuses.items())
    if platform.death:
        text = job.log.read_text(encoding="utf-8", errors="replace")
        deaths = [(int(match["rank"]), int(match["status"])) for match in re.finditer(platform.death, text)]
    for rank, status in deaths:
        if rank not in reports and status not in (0, -signal.SIGTERM):  # launchers send that to the others
            return _death(rank, status)
    for rank, report in reports.items():
        return Failure(report.kind, f"rank {rank}: {report.reason}")
    if watch.stalled:
        return Failure("ranks", f"nothing moved for {job.setting.rank_timeout:.0f} s: a rank has died or hangs")
    return Failure("ranks", f"the ranks ended without an outcome; last words: {last_words(job.log)}")
