"""A phase process from start to end: builds the backend, performs one phase, leaves its outcome."""

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from shared_spec import files, ranks
from shared_spec.backend import Backend, DeviceWatchdog, OutOfMemory
from shared_spec.errors import UserError
from shared_spec.machine import caches, memory
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Progress, silent
from shared_spec.platform import Platform
from shared_spec.results.format import FailureKind
from shared_spec.run import phases, proof
from shared_spec.run.context import Context
from shared_spec.run.events import introduce, reporter
from shared_spec.run.job import EXIT_USER_ERROR, PARENT_ENV, Failure, Job, ran
from shared_spec.run.phases import Measured
from shared_spec.workload.spec import Spec


def main(platform: Platform, job_file: Path, event_descriptor: int) -> int:
    """Body of the one process of a phase; returns its exit status."""
    _die_with_parent()
    job = Job.read(job_file)
    start = monotonic() if job.started is None else job.started
    job.setting.take_cores(0, 1)
    try:
        part = perform(platform, job, reporter(os.fdopen(event_descriptor, "w", buffering=1)))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as error:  # a phase that fails must not take the run with it; the log has the traceback
        traceback.print_exc()
        part = failure_of(error).part()
    job.keep(part, monotonic() - start)
    return 0


def main_of_rank(platform: Platform, job_file: Path, event_pipe: Path) -> int:
    """Body of one of several processes of a phase; returns its exit status.

    Rank 0 writes the outcome of a phase that succeeds. A rank that fails leaves its reason, and the parent puts
    together what the ranks and the launcher report.
    """
    _die_with(int(os.environ[PARENT_ENV]))
    job, world = Job.read(job_file), platform.world()
    job.setting.take_cores(world.local_rank, world.local_size)
    start = monotonic()

    def report(kind: FailureKind | None, reason: str) -> None:
        """Say why this rank has failed; None: it cannot run at all here."""
        files.write(job.rank_report(world.rank), {"kind": kind, "reason": reason})

    with event_pipe.open("w", buffering=1) as pipe:
        introduce(pipe)
        try:
            progress = reporter(pipe) if world.rank == 0 else silent
            part = perform_watched(platform, job, progress, lambda failure: report(*failure))
        except UserError as error:
            report(None, str(error))
            return EXIT_USER_ERROR
        except Exception as error:
            traceback.print_exc()
            report(*failure_of(error))
            return 1
    if world.rank == 0:
        job.keep(part, monotonic() - start)
    return 0


def perform_watched(
    platform: Platform, job: Job, progress: Progress, on_stall: Callable[[Failure], None]
) -> dict[str, Any]:
    """Run the phase as one of the ranks; this process ends itself, after `on_stall`, when nothing moves any more."""
    watchdog = ranks.Watchdog(job.setting.rank_timeout, lambda reason: on_stall(Failure("ranks", reason)))

    def beating(done: float, text: str, **figures: float) -> None:
        watchdog.beat()
        progress(done, text, **figures)

    with watchdog.on_guard():
        return perform(platform, job, beating)


def perform(platform: Platform, job: Job, progress: Progress) -> dict[str, Any]:
    """Run the phase, alone or as one of its ranks; return its part of the outcome."""
    entered, phase, setting = monotonic(), phases.BY_NAME[job.phase], job.setting
    progress(0.0, "starting")
    idle_before = phase.before(job) if phase.before else None
    before_framework = memory.resident_bytes()
    cached = caches.programs(platform.program_caches(setting.device, setting.engine, os.environ))
    ready = monotonic()
    backend = make_backend(platform, setting.spec, setting.device, setting.precision, setting.engine)
    built, before_model = monotonic(), memory.resident_bytes()
    if phase.ranks == "all" and backend.group.size != setting.ranks:
        raise UserError(f"{setting.ranks} ranks were asked for, and {backend.group.size} came together.")
    context = Context(backend, job, progress, idle_before=idle_before)
    with memory.DriverPeak() if setting.device == "cuda" else contextlib.nullcontext() as context.driver_peak:
        measurements = phase.perform(context)
        if phase.with_memory:
            before = {"host_before_framework": before_framework, "host_before_model": before_model}
            measurements = measurements.changed(memory={**backend.memory(), **context.process_memory(), **before})
    if phase.proof is not None:
        progress(0.95, "looking at what was timed")
        checks = tuple(proof.complete(phase.proof, context, measurements))
        measurements = measurements.changed(checks=checks, unchecked=proof.unchecked(context, phase.name))
    startup = {
        "process_seconds": None if job.started is None else entered - job.started,
        "backend_seconds": built - ready,
        "preparation_seconds": context.preparation_seconds,
        "cached_programs": cached,
    }
    part = ended_well(described(backend, setting.ranks), measurements, startup)
    if context.ran_before:
        seconds = monotonic() - (entered if job.started is None else job.started)
        part["ran"] = [*(one.to_dict() for one in context.ran_before), ran(job, seconds)]
    return part


def ended_well(backend: dict[str, Any], measurements: Measured, startup: dict[str, Any] | None) -> dict[str, Any]:
    """The part of an outcome that says what a phase has measured."""
    head = {"status": "ok", "failure": None, "reason": None, "startup": startup}
    return {**head, "backend": backend, "measurements": measurements.to_dict()}


def described(backend: Backend, ranks_of_phase: int) -> dict[str, Any]:
    """What really ran (results.schema.json: backend), what connects the ranks among its details."""
    description = backend.describe()
    if ranks_of_phase > 1:
        group = {"ranks": backend.group.size}
        description["details"] |= group | {f"ranks_{key}": value for key, value in backend.group.describe().items()}
    return description


def failure_of(error: Exception) -> Failure:
    """Why a phase failed that raised `error`."""
    if isinstance(error, OutOfMemory | MemoryError):
        return Failure("out_of_memory", f"out of memory: {error}")
    if isinstance(error, DeviceWatchdog):
        return Failure("watchdog", str(error))
    if isinstance(error, ranks.RanksApart):
        return Failure("ranks", str(error))
    return Failure("fault", f"{type(error).__name__}: {error}")


def make_backend(platform: Platform, spec: Spec, device: str, precision: str, engine: str) -> Backend:
    """Import the platform's framework and build its backend.

    Raises:
        UserError: the framework is not installed, or cannot run as asked on this machine.
    """
    backend: Backend = _imported(platform, platform.backend)(spec, device, precision, engine)
    return backend


def connect(platform: Platform, device: str) -> ranks.Group:
    """This process's group, connected through the platform's engine.

    Raises:
        UserError: the framework is not installed, or cannot connect ranks on this device.
    """
    make = _imported(platform, platform.group)
    try:
        group: ranks.Group = make(device)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{ranks.stale(platform.launcher_env)} The ranks cannot be connected: {words}") from error
    return group


def _imported(platform: Platform, where: str) -> Any:
    """What "module:name" names in a platform's package."""
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"{where} cannot be imported ({error}); run `make setup-{platform.make_target}` "
            f"or `pip install -r requirements.lock` in {platform.folder}."
        ) from error


def _die_with_parent() -> None:
    """End this process when its parent is gone, however it went: the parent holds the other end of our stdin."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would abort the interpreter at a normal exit
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _die_with(pid: int) -> None:
    """End this process when process `pid` is gone: the launcher between the two would not tell."""

    def watch() -> None:
        while psutil.pid_exists(pid):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
