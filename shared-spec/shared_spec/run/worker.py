"""The phases of a run, each one in a fresh process: what a phase process does from start to end."""

import contextlib
import importlib
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

from shared_spec import files, ranks
from shared_spec.backend import Backend, OutOfMemory
from shared_spec.conformance import checks as conformance_checks
from shared_spec.data import cifar100
from shared_spec.data.batches import TrainingBatches
from shared_spec.errors import UserError
from shared_spec.machine import facts, memory
from shared_spec.machine.energy.meter import Meter, Unmetered
from shared_spec.machine.energy.open import open_meter
from shared_spec.measure import blocks, ceiling, inference, training
from shared_spec.measure.blocks import Progress
from shared_spec.measure.clock import monotonic
from shared_spec.measure.convergence import Convergence
from shared_spec.platform import Platform
from shared_spec.results.format import FailureKind
from shared_spec.run.job import (
    EXIT_USER_ERROR,
    PARALLEL,
    PARENT_ENV,
    WITH_MEMORY,
    Job,
    failure,
    outcome_of,
    rank_report,
)
from shared_spec.run.max_batch import OUT_OF_MEMORY
from shared_spec.workload import params
from shared_spec.workload.spec import Profile, Spec, parse_spec


@dataclass
class Context:
    """What every phase function works with.

    Attributes:
        preparation_seconds: data read and initial weights loaded; None where a phase's own clock has that in it.
        loader_bytes: what the data and the batches made ahead of need take of the host's memory; 0 without data.
    """

    backend: Backend
    spec: Spec
    profile: Profile
    job: Job
    progress: Progress
    preparation_seconds: float | None = None
    loader_bytes: int = 0

    def dataset(self) -> cifar100.Dataset:
        data = cifar100.load(Path(self.job.data) if self.job.data else None, self.spec)
        self.loader_bytes = sum(
            array.nbytes for array in (data.train_images, data.train_labels, data.test_images, data.test_labels)
        )
        return data

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Times what comes between the backend and its first step."""
        start = monotonic()
        yield
        self.preparation_seconds = monotonic() - start

    def process_memory(self) -> dict[str, int | None]:
        """Memory of this process by name, bytes."""
        return {**memory.of_process(self.job.device), "host_loader": self.loader_bytes}

    @cached_property
    def meter(self) -> Meter:
        if self.job.ranks > 1 and self.job.power_watts is None:
            return Unmetered(
                "no meter of this system sees all ranks and nothing else; --power-watts takes what a wall meter shows"
            )
        return open_meter(self.job.device, self.job.power_watts, monotonic)

    @contextlib.contextmanager
    def trainer(self) -> Iterator[training.Trainer]:
        """A trainer at the initial weights, at this job's batch size and seed."""
        job = self.job
        with self.preparing():
            data = self.dataset()
            self.backend.load_params(params.initial(self.spec))
            images, labels = data.train_images, data.train_labels
            batches = TrainingBatches(self.spec, images, labels, job.batch_size, job.seed, self.backend.group)
        self.loader_bytes += self.spec.measuring.prefetch_batches * batches.batch_bytes
        with batches.prefetched() as prefetched:
            yield training.Trainer(self.backend, self.spec, iter(prefetched), job.batch_size, monotonic)


def _conformance(context: Context) -> dict[str, Any]:
    checks = conformance_checks.run(context.backend, context.spec, context.job.precision, context.progress)
    return {"passed": all(check.passed for check in checks), "checks": [asdict(check) for check in checks]}


def _ceiling(context: Context) -> dict[str, Any]:
    return ceiling.measure_ceiling(context.backend, context.spec, context.profile, monotonic, context.progress)


def _training(context: Context) -> dict[str, Any]:
    meter = context.meter
    if context.job.power_watts is not None:
        meter = Unmetered("--power-watts is the power while training; nobody said what it is when idle")
    idle = training.measure_idle(meter, context.profile.idle_seconds)
    with context.trainer() as trainer:
        return {"idle": idle, **training.measure_training(trainer, context.profile, context.meter, context.progress)}


def _max_batch(context: Context) -> dict[str, Any]:
    """One try of one batch size; the search over them is the parent's."""
    with context.trainer() as trainer:
        return training.measure_batch(trainer, context.profile.max_batch_steps, context.progress)


def _convergence(context: Context) -> dict[str, Any]:
    job = context.job
    return Convergence(
        context.backend, context.spec, context.dataset, job.batch_size, job.seed, job.stop,
        Path(job.checkpoint), context.profile.checkpoint_seconds, context.meter,
        monotonic, context.progress, context.process_memory,
    ).run()  # fmt: skip


def _inference_ready(context: Context) -> np.ndarray:
    """Load the initial weights; return the test images."""
    with context.preparing():
        context.backend.load_params(params.initial(context.spec))
        return context.dataset().test_images


def _latency(context: Context) -> dict[str, Any]:
    images = _inference_ready(context)
    return inference.measure_latency(
        context.backend, images, context.spec, context.profile, monotonic, context.progress
    )


def _inference(context: Context) -> dict[str, Any]:
    images = _inference_ready(context)
    return inference.measure_inference(
        context.backend, images, context.spec, context.profile, monotonic, context.progress
    )


PHASES: dict[str, Callable[[Context], dict[str, Any]]] = {
    "conformance": _conformance,
    "ceiling": _ceiling,
    "training": _training,
    "latency": _latency,
    "inference": _inference,
    "max_batch": _max_batch,
    "convergence": _convergence,
}


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
    group: ranks.Group = _imported(platform, platform.group)(device)
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


def perform(platform: Platform, job: Job, progress: Progress) -> dict[str, Any]:
    """Run the phase, alone or as one of its ranks; return its part of the outcome."""
    entered = time.monotonic()
    spec = parse_spec(job.spec, "the spec of this run")
    progress(0.0, "starting")
    before_framework = psutil.Process().memory_info().rss
    backend = make_backend(platform, spec, job.device, job.precision, job.engine)
    built, before_model = time.monotonic(), psutil.Process().memory_info().rss
    if job.phase in PARALLEL and backend.group.size != job.ranks:
        raise UserError(f"{job.ranks} ranks were asked for, and {backend.group.size} came together.")
    context = Context(backend, spec, spec.profile(job.profile), job, progress)
    measurements = PHASES[job.phase](context)
    if job.phase in WITH_MEMORY:
        measurements["memory"] = {
            **backend.memory(),
            **context.process_memory(),
            "host_before_framework": before_framework,
            "host_before_model": before_model,
        }
    startup = {
        "process_seconds": None if job.started is None else entered - job.started,
        "backend_seconds": built - entered,
        "preparation_seconds": context.preparation_seconds,
    }
    described = backend.describe()
    if job.ranks > 1:
        described["details"] |= ranks_as_details(backend.group)
    done = {"status": "ok", "failure": None, "reason": None, "startup": startup}
    return {**done, "backend": described, "measurements": measurements}


def ranks_as_details(group: ranks.Group) -> dict[str, Any]:
    """A group among the details of a backend (results.schema.json: backend)."""
    return {"ranks": group.size, **{f"ranks_{key}": value for key, value in group.describe().items()}}


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


def _reporter(pipe: IO[str]) -> Progress:
    """A Progress that writes JSON lines to the parent, at most ten a second so that it costs nothing."""
    last = -math.inf

    def report(done: float, text: str, **figures: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.1:
            last = now
            with contextlib.suppress(OSError):
                pipe.write(json.dumps({"done": done, "text": text, "figures": figures}) + "\n")

    return report


def main(platform: Platform, job_path: Path, event_descriptor: int) -> int:
    """Body of the one process of a phase; returns its exit status."""
    _die_with_parent()
    job = Job.read(job_path)
    start = time.monotonic() if job.started is None else job.started
    try:
        part = perform(platform, job, _reporter(os.fdopen(event_descriptor, "w", buffering=1)))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as error:  # a phase that fails must not take the run with it; the log has the traceback
        traceback.print_exc()
        part = failure(*failure_of(error))
    files.write(Path(job.outcome), outcome_of(job, time.monotonic() - start, part))
    return 0


def main_of_rank(platform: Platform, job_path: Path, events: Path) -> int:
    """Body of one of several processes of a phase; returns its exit status.

    Rank 0 writes the outcome of a phase that succeeds. A rank that fails leaves its reason, and the parent puts
    together what the ranks and the launcher say.
    """
    _die_with(int(os.environ[PARENT_ENV]))
    job, world = Job.read(job_path), platform.world()
    rank = world.rank
    facts.take_core_share(world.local_rank, world.local_size)
    start = time.monotonic()

    def fail(kind: FailureKind, reason: str, user_error: bool = False) -> None:
        files.write(rank_report(job, rank), {"failure": kind, "reason": reason, "user_error": user_error})

    watchdog = ranks.Watchdog(job.timeout, lambda reason: fail("ranks", reason))
    with events.open("w", buffering=1) as pipe:
        pipe.write(json.dumps({"pid": os.getpid()}) + "\n")
        report = _reporter(pipe) if rank == 0 else blocks.silent

        def progress(done: float, text: str, **figures: float) -> None:
            watchdog.beat()
            report(done, text, **figures)

        try:
            with watchdog.on_guard():
                part = perform(platform, job, progress)
        except UserError as error:
            fail("fault", str(error), user_error=True)
            return EXIT_USER_ERROR
        except Exception as error:
            traceback.print_exc()
            fail(*failure_of(error))
            return 1
    if rank == 0:
        files.write(Path(job.outcome), outcome_of(job, time.monotonic() - start, part))
    return 0


def failure_of(error: Exception) -> tuple[FailureKind, str]:
    """Why a phase failed, as the outcome says it: the kind, and a sentence."""
    if isinstance(error, OutOfMemory | MemoryError):
        return "out_of_memory", f"{OUT_OF_MEMORY}: {error}"
    if isinstance(error, ranks.RanksApart):
        return "ranks", str(error)
    return "fault", f"{type(error).__name__}: {error}"
