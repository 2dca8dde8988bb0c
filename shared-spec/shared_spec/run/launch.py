"""Starting the ranks of a phase through the engine's own launcher, watching over them, and telling why they ended."""

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from shared_spec import files, ranks
from shared_spec.errors import UserError
from shared_spec.measure.blocks import Progress
from shared_spec.platform import Platform
from shared_spec.results.format import FailureKind
from shared_spec.run.job import PARENT_ENV, Job, rank_report

Failure = tuple[FailureKind, str]
GRACE = 3.0
"""Seconds that the other ranks, and the launcher, have to notice that one has ended."""


def run_ranks(platform: Platform, job: Job, job_path: Path, log: Path, progress: Progress) -> Failure | None:
    """Run one phase in `job.ranks` processes on this host; all have ended when this returns.

    Returns:
        None where rank 0 has written the outcome, otherwise why it has not: the kind of the failure, and a sentence.

    Raises:
        UserError: a rank cannot run at all here.
    """
    replace(job, started=time.monotonic()).write(job_path)
    for rank in range(job.ranks):
        rank_report(job, rank).unlink(missing_ok=True)
    events = job_path.with_suffix(".events")
    words = ["-m", platform.package, "_phase", str(job_path), str(events)]
    env = {**os.environ, **job.worker_env, ranks.TIMEOUT_ENV: str(job.timeout), PARENT_ENV: str(os.getpid())}
    with _pipe(events) as reading, log.open("w") as output:
        processes = [
            subprocess.Popen(
                [*start.arguments], stdin=subprocess.PIPE, stdout=output, stderr=output, env={**env, **start.env}
            )
            for start in platform.launch(job.ranks, job.device, words)
        ]
        watch = _Watch(job, reading, processes, progress)
        try:
            watch.until_end()
        finally:
            watch.kill(job_path)
    if Path(job.outcome).exists():
        return None
    return _why(platform, job, log, watch)


@contextmanager
def _pipe(path: Path) -> Iterator[int]:
    """A named pipe to read from: launchers pass no descriptors on. The end held open here keeps it from ending."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
        path.unlink()


class _Watch:
    """Follows the ranks' events until all have ended, or some have and the others do not follow, or nothing moves."""

    def __init__(self, job: Job, reading: int, processes: list[subprocess.Popen[bytes]], progress: Progress) -> None:
        self.job, self.reading, self.processes, self.progress = job, reading, processes, progress
        self.pids: set[int] = set()
        self.stalled = False
        self.statuses: dict[int, int] = {}  # of the processes that ended by themselves
        self.text = b""

    def until_end(self) -> None:
        last_event, failed_since = time.monotonic(), None
        while not self._all_have_ended():
            if select.select([self.reading], [], [], 0.2)[0] and (data := os.read(self.reading, 1 << 16)):
                last_event = time.monotonic()
                self._follow(data)
            now = time.monotonic()
            if failed_since is None and self._one_has_failed():
                failed_since = now
            # The ranks' own watchdogs come first: they know more.
            self.stalled = now - last_event > self.job.timeout + GRACE
            if self.stalled or (failed_since is not None and now - failed_since > GRACE):
                return

    def _all_have_ended(self) -> bool:
        statuses = [process.poll() for process in self.processes]
        self.statuses = {i: status for i, status in enumerate(statuses) if status is not None}
        return len(self.statuses) == len(statuses)

    def _one_has_failed(self) -> bool:
        reports = (rank_report(self.job, rank) for rank in range(self.job.ranks))
        return any(self.statuses.values()) or any(report.exists() for report in reports)

    def _follow(self, data: bytes) -> None:
        *lines, self.text = (self.text + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # lines of two ranks may have run together
                event: dict[str, Any] = json.loads(line)
                if "pid" in event:
                    self.pids.add(int(event["pid"]))
                else:
                    figures = {name: value for name, value in event["figures"].items() if math.isfinite(value)}
                    self.progress(float(event["done"]), str(event["text"]), **figures)

    def kill(self, job_path: Path) -> None:
        """End all that still runs: launchers, what they started, and ranks whose launcher is gone."""
        doomed = {process.pid: process for process in self._family()}
        for pid in self.pids - doomed.keys():
            with contextlib.suppress(psutil.Error):
                orphan = psutil.Process(pid)
                if str(job_path) in orphan.cmdline():  # and not another process that was given its number
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


def _reports(job: Job) -> dict[int, dict[str, Any]]:
    """What failing ranks have said, the first to fail first."""
    paths = {rank: rank_report(job, rank) for rank in range(job.ranks)}
    there = [rank for rank, path in paths.items() if path.exists()]
    return {rank: files.read(paths[rank]) for rank in sorted(there, key=lambda rank: paths[rank].stat().st_mtime_ns)}


def _ended(rank: int, status: int) -> str:
    if status < 0:
        return f"rank {rank} was killed by {signal.Signals(-status).name}"
    return f"rank {rank} ended with status {status}"


def _why(platform: Platform, job: Job, log: Path, watch: _Watch) -> Failure:
    """The first cause of a failure: a rank that was killed, else what the first rank to fail has said."""
    text = log.read_text(encoding="utf-8", errors="replace")
    said = _reports(job)
    for report in said.values():
        if report["user_error"]:
            raise UserError(report["reason"])
    deaths = list(watch.statuses.items())
    if platform.death:
        deaths = [(int(found["rank"]), int(found["status"])) for found in re.finditer(platform.death, text)]
    for rank, status in deaths:
        if rank not in said and status not in (0, -signal.SIGTERM):  # launchers send that to the others
            return "ranks", _ended(rank, status)
    if said:
        rank, report = next(iter(said.items()))
        return report["failure"], f"rank {rank}: {report['reason']}"
    if watch.stalled:
        return "ranks", f"nothing moved for {job.timeout:.0f} s: a rank has died or hangs"
    words = [line.strip() for line in text.splitlines() if line.strip()]
    return "ranks", f"the ranks ended without an outcome; last words: {words[-1] if words else 'none'}"
