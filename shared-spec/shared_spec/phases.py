"""The phases of a run, each one in a fresh process: what a phase process does from start to end."""

import contextlib
import importlib
import json
import math
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil

from shared_spec import cifar100, conformance, energy, environment, harness, jsonio, params
from shared_spec.backend import Backend, OutOfMemory, Platform
from shared_spec.batches import TrainingBatches
from shared_spec.convergence import Convergence
from shared_spec.errors import UserError
from shared_spec.harness import Progress
from shared_spec.max_batch import OUT_OF_MEMORY
from shared_spec.spec import Profile, Spec, parse_spec

REPEATED = ("training", "latency", "inference")
"""Phases that the profile repeats, each time in a new process and with the next seed; convergence has its own count."""
WITH_MEMORY = (*REPEATED, "max_batch")
"""Phases whose process ends with a reading of its peak memory; convergence keeps its own over several processes."""


@dataclass(frozen=True)
class Job:
    """All that a phase process has to know; handed over as a JSON file.

    Attributes:
        spec: the whole spec as plain JSON values.
        data: folder of the real files, or None for the synthetic stand-in.
        outcome: file that the process writes its outcome to; a checkpoint lies beside it.
        stop: whether a full training ends at the target or after all epochs.
        power_watts: what a wall meter showed, where the user read one.
    """

    phase: str
    repeat: int
    seed: int
    device: str
    engine: str
    precision: str
    profile: str
    batch_size: int
    spec: dict[str, Any]
    data: str | None
    worker_env: dict[str, str]
    outcome: str
    stop: Literal["target", "epochs"] = "epochs"
    power_watts: float | None = None

    def write(self, path: Path) -> None:
        jsonio.write(path, asdict(self))

    @staticmethod
    def read(path: Path) -> "Job":
        return Job(**jsonio.read(path))


@dataclass
class Context:
    """What every phase function works with."""

    backend: Backend
    spec: Spec
    profile: Profile
    job: Job
    progress: Progress

    def dataset(self) -> cifar100.Dataset:
        return cifar100.load(Path(self.job.data) if self.job.data else None, self.spec)

    @cached_property
    def meter(self) -> energy.Meter:
        return energy.open_meter(self.job.device, self.job.power_watts, harness.monotonic)

    @contextlib.contextmanager
    def trainer(self) -> Iterator[harness.Trainer]:
        """A trainer at the initial weights, at this job's batch size and seed."""
        job, data = self.job, self.dataset()
        self.backend.load_params(params.initial(self.spec))
        batches = TrainingBatches(self.spec, data.train_images, data.train_labels, job.batch_size, job.seed)
        with batches.prefetched() as prefetched:
            yield harness.Trainer(self.backend, self.spec, iter(prefetched), job.batch_size, harness.monotonic)


def _conformance(context: Context) -> dict[str, Any]:
    checks = conformance.run(context.backend, context.spec, context.job.precision, context.progress)
    return {"passed": all(check.passed for check in checks), "checks": [asdict(check) for check in checks]}


def _ceiling(context: Context) -> dict[str, Any]:
    return harness.measure_ceiling(context.backend, context.spec, context.profile, harness.monotonic, context.progress)


def _training(context: Context) -> dict[str, Any]:
    meter = context.meter
    if context.job.power_watts is not None:
        meter = energy.Unmetered("--power-watts is the power while training; nobody said what it is when idle")
    idle = harness.measure_idle(meter, context.profile.idle_seconds)
    with context.trainer() as trainer:
        return {"idle": idle, **harness.measure_training(trainer, context.profile, context.meter, context.progress)}


def _max_batch(context: Context) -> dict[str, Any]:
    """One try of one batch size; the search over them is the parent's."""
    with context.trainer() as trainer:
        return harness.measure_batch(trainer, context.profile.max_batch_steps, context.progress)


def _convergence(context: Context) -> dict[str, Any]:
    job = context.job
    return Convergence(
        context.backend, context.spec, context.dataset, job.batch_size, job.seed, job.stop,
        Path(job.outcome).with_suffix(".safetensors"), context.profile.checkpoint_seconds, context.meter,
        harness.monotonic, context.progress, host_peak_bytes,
    ).run()  # fmt: skip


def _latency(context: Context) -> dict[str, Any]:
    context.backend.load_params(params.initial(context.spec))
    images = context.dataset().test_images
    return harness.measure_latency(
        context.backend, images, context.spec, context.profile, harness.monotonic, context.progress
    )


def _inference(context: Context) -> dict[str, Any]:
    context.backend.load_params(params.initial(context.spec))
    images = context.dataset().test_images
    return harness.measure_inference(
        context.backend, images, context.spec, context.profile, harness.monotonic, context.progress
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


def host_peak_bytes() -> int:
    """High-water resident set of this process; ru_maxrss counts KiB on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as None: JSON has no such numbers, and a reader must not guess."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def make_backend(platform: Platform, spec: Spec, device: str, precision: str, engine: str) -> Backend:
    """Import the platform's framework and build its backend.

    Raises:
        UserError: the framework is not installed, or cannot run as asked on this machine.
    """
    module, _, name = platform.backend.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"{platform.backend} cannot be imported ({error}); run `make setup-{platform.make_target}` "
            f"or `pip install -r requirements.lock` in {platform.folder}."
        ) from error
    backend: Backend = backend_class(spec, device, precision, engine)
    return backend


def _perform(platform: Platform, job: Job, progress: Progress) -> dict[str, Any]:
    """Run the phase; return its part of the outcome."""
    spec = parse_spec(job.spec, "the spec of this run")
    progress(0.0, "starting")
    before_model = psutil.Process().memory_info().rss
    backend = make_backend(platform, spec, job.device, job.precision, job.engine)
    context = Context(backend, spec, spec.profile(job.profile), job, progress)
    measurements = PHASES[job.phase](context)
    if job.phase in WITH_MEMORY:
        measurements["memory"] = {
            **backend.memory(),
            "host_peak": host_peak_bytes(),
            "host_before_model": before_model,
        }
    return {"status": "ok", "reason": None, "backend": backend.describe(), "measurements": measurements}


def failure(reason: str) -> dict[str, Any]:
    """The part of an outcome that says that, and why, a phase failed."""
    return {"status": "failed", "reason": environment.scrub(reason)[:4000], "backend": None, "measurements": None}


def outcome(job: Job, seconds: float, part: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a phase as it stands in the result (results.schema.json: phase)."""
    head = {"phase": job.phase, "repeat": job.repeat, "seed": job.seed, "seconds": seconds}
    return _finite({**head, "worker_env": environment.scrub(job.worker_env), **environment.scrub(part)})  # type: ignore[no-any-return]


def _die_with_parent() -> None:
    """End this process when its parent is gone, however it went: the parent holds the other end of our stdin."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would abort the interpreter at a normal exit
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reporter(descriptor: int) -> Progress:
    """A Progress that writes JSON lines to the parent, at most ten a second so that it costs nothing."""
    pipe = os.fdopen(descriptor, "w", buffering=1)
    last = -math.inf

    def report(done: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.1:
            last = now
            with contextlib.suppress(OSError):
                pipe.write(json.dumps({"done": done, "text": text}) + "\n")

    return report


EXIT_USER_ERROR = 3
"""Exit status of a phase process that cannot run at all here; its last line of stderr says why."""


def main(platform: Platform, job_path: Path, event_descriptor: int) -> int:
    """Body of a phase process; returns its exit status."""
    _die_with_parent()
    job = Job.read(job_path)
    start = time.monotonic()
    try:
        part = _perform(platform, job, _reporter(event_descriptor))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    except (OutOfMemory, MemoryError) as error:
        part = failure(f"{OUT_OF_MEMORY}: {error}")
    except Exception as error:  # a phase that fails must not take the run with it; the log has the traceback
        traceback.print_exc()
        part = failure(f"{type(error).__name__}: {error}")
    jsonio.write(Path(job.outcome), outcome(job, time.monotonic() - start, part))
    return 0
