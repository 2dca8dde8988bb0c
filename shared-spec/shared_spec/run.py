"""The parent of a run: plans, starts a fresh process for each phase, shows progress, resumes, writes the result.

It imports no framework. What a phase found is on disk, whole or not at all, the moment the phase ends
(results/.runs/KEY/), so that whatever is killed, running again goes on from there.

A run of several ranks comes about in two ways. On one host `--nproc` has the parent start each parallel phase through
the engine's launcher in place of a plain process (launch.py). On several, the user has the engine's launcher start
`run` itself, once a rank: then the phases run in these processes, rank 0 is the parent, and the others do what it says
(`follow`).
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from shared_spec import (
    cifar100,
    energy,
    environment,
    harness,
    jsonio,
    launch,
    max_batch,
    parallel,
    params,
    phases,
    results,
    verdicts,
    watch,
)
from shared_spec.backend import Platform
from shared_spec.child import Ended, Limits, run_job
from shared_spec.convergence import Stop, load_checkpoint
from shared_spec.errors import UserError
from shared_spec.parallel import ALONE, Group
from shared_spec.phases import Job
from shared_spec.screen import Display
from shared_spec.spec import Profile, Spec
from shared_spec.stability import interval_width
from shared_spec.watch import Watch


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        data: --data as given; None looks in the usual places, "synthetic" asks for the stand-in.
        phases: the phases to run, in order.
        out: folder of the result.
        fresh: throw away what an unfinished run of the same kind left.
        stop: whether a full training ends at the target or after all epochs.
        power_watts: what a wall meter shows, where the user reads one.
        largest_batch: no larger batch is tried.
        memory_share: part of the physical memory that a try may take where the device has none of its own.
        keep_weights: leave the final weights of each full training beside the result.
        ranks: how many processes train together.
        scaling: what grows with their number: nothing ("strong") or the global batch ("weak").
        rank_timeout: seconds of silence after which a rank is given up.
    """

    platform: Platform
    spec: Spec
    profile_name: str
    precision: str
    device: str
    engine: str
    data: str | None
    phases: tuple[str, ...]
    out: Path
    fresh: bool = False
    stop: Stop = "epochs"
    power_watts: float | None = None
    largest_batch: int = 65536
    memory_share: float = 0.7
    keep_weights: bool = False
    ranks: int = 1
    scaling: str = "strong"
    rank_timeout: float = parallel.DEFAULT_TIMEOUT

    @property
    def batch_size(self) -> int:
        """Of the global batch: what the spec says, for each rank where the scaling is weak."""
        return self.spec.training.batch_size * (self.ranks if self.scaling == "weak" else 1)

    @property
    def planned_phases(self) -> tuple[str, ...]:
        """The phases that can be run: with several ranks, those they share and the ceiling of one device."""
        if self.ranks == 1:
            return self.phases
        return tuple(phase for phase in self.phases if phase in (*phases.PARALLEL, "ceiling"))

    @cached_property
    def profile(self) -> Profile:
        return self.spec.profile(self.profile_name)


@dataclass(frozen=True)
class Planned:
    """One phase process to be: which phase, which repeat of it."""

    phase: str
    repeat: int
    number: int

    @property
    def title(self) -> str:
        return f"{self.phase} {self.repeat + 1}" if self.phase in (*phases.REPEATED, "convergence") else self.phase

    @property
    def stem(self) -> str:
        return f"{self.number:02d}-{self.phase}-{self.repeat}"


def plan(profile: Profile, chosen: tuple[str, ...]) -> list[Planned]:
    """The phase processes in order: round after round of the repeated ones, so that slow drift hits all alike."""
    order = [(phase, 0) for phase in chosen if phase in ("conformance", "ceiling")]
    order += [(phase, r) for r in range(profile.repeats) for phase in chosen if phase in phases.REPEATED]
    order += [("max_batch", 0)] if "max_batch" in chosen else []
    order += [("convergence", r) for r in range(profile.convergence_repeats) if "convergence" in chosen]
    return [Planned(phase, repeat, number) for number, (phase, repeat) in enumerate(order)]


COMPILED = {"conformance": 2.0, "training": 1.0, "latency": 0.25, "max_batch": 10.0, "convergence": 1.25}
"""What a phase compiles, in training steps; a forward pass is about a quarter of one, and inference has one a size."""


def estimate(phase: str, spec: Spec, profile: Profile, rate: float, compile_seconds: float = 0.0) -> float:
    """Rough seconds for a phase process on a device that computes at `rate` FLOP/s; for the plan and the ETA only.

    `compile_seconds` is what the framework takes to compile a training step.
    """
    model, rules, start_up = spec.model, spec.measuring, 10.0 + COMPILED.get(phase, 0.0) * compile_seconds
    step = spec.training.batch_size * model.training_flops / rate
    image = model.forward_flops / rate
    warmup_steps = 1 + rules.steady_blocks * rules.block_steps
    if phase == "conformance":
        return start_up + 120 * model.training_flops / rate + 15
    if phase == "ceiling":
        return start_up + 1.5 * profile.ceiling_seconds
    if phase == "training":
        window = max(profile.window_min_steps * step, profile.window_seconds)
        return start_up + (warmup_steps + profile.step_samples) * step + window
    if phase == "latency":
        return start_up + 2.5 * max(profile.latency_samples * image, profile.latency_seconds)
    if phase == "max_batch":
        return start_up + 10 * (10.0 + (2 + profile.max_batch_steps) * 8 * step)
    if phase == "convergence":
        evaluation = spec.data.test_images * image
        return start_up + spec.training.epochs * (spec.steps_per_epoch(spec.training.batch_size) * step + evaluation)
    sizes = [1 << i for i in range(profile.inference_max_batch.bit_length())]
    compiling = 0.25 * len(sizes) * compile_seconds
    return start_up + compiling + sum(max(3 * profile.inference_seconds, warmup_steps * size * image) for size in sizes)


def guessed_rate(device: str) -> float:
    """FLOP/s to plan with before the ceiling phase has measured any: a product in NumPy on a CPU, else 20 TFLOP/s."""
    if device != "cpu":
        return 2e13
    n = 1024
    a = np.ones((n, n), np.float32)
    a @ a
    start = time.perf_counter()
    a @ a
    return 1.4 * float(n) ** 3 / (time.perf_counter() - start)


FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "training": verdicts.images_per_second,
    "latency": verdicts.latency_seconds,
}
"""The figure of a repeated phase that has to be known to within measuring.interval_tolerance."""


def memory_bound(device: str, share: float) -> float | None:
    """Bytes a try may take where the device's memory is the machine's own; None where the device has its own."""
    if device != "cpu" and sys.platform != "darwin":
        return None
    memory = psutil.virtual_memory()
    limits = [share * memory.total, 0.9 * memory.available]
    if (limit := environment.memory_limit()) is not None:
        limits.append(share * limit)
    return float(min(limits))


def classify(batch_size: int, outcome: dict[str, Any], ended: Ended | None) -> max_batch.Try:
    """What a try of one batch size says: it fits, memory ran out, it was too slow, or something else is wrong."""
    told = (outcome["reason"] or "").startswith(max_batch.OUT_OF_MEMORY)
    if outcome["status"] == "ok":
        verdict = max_batch.FITS
    elif told or (ended is not None and (ended.over_memory or ended.out_of_memory_kill)):
        verdict = max_batch.OUT_OF_MEMORY
    elif ended is not None and ended.over_time:
        verdict = max_batch.TOO_SLOW
    else:
        verdict = max_batch.FAULT
    return max_batch.Try(batch_size, verdict, outcome["reason"], outcome["measurements"])


RESTARTED = "taken up again after a restart, or on another machine of the same kind"
RESTART_SECONDS = 120.0
"""Two times of start-up of a system within so many seconds are the same one, read from a clock that was set."""


def check_machine(begun_on: dict[str, Any], machine: dict[str, Any], where: Path) -> None:
    """Raise UserError where an unfinished run, kept at `where`, was begun on another machine than this."""
    for fact in environment.MACHINE:
        if begun_on.get(fact) != machine.get(fact):
            raise UserError(
                f"{where}: this run was begun on another machine ({fact}: {begun_on.get(fact)}, here "
                f"{machine.get(fact)}); go on there, or start over with --fresh, or choose another --out."
            )


class RunFolder:
    """What is on disk of an unfinished run."""

    def __init__(self, request: Request, data_checksums: dict[str, str]) -> None:
        commit, _ = environment.git_state(Path(__file__).parent)
        identity = [
            request.platform.name, request.engine, request.device, request.precision, request.spec.to_dict(),
            request.profile_name, request.phases, request.stop, request.power_watts, request.largest_batch,
            request.memory_share, data_checksums, commit, *([request.batch_size] if request.scaling == "weak" else []),
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.path = request.out / ".runs" / key
        # Outcomes are of one number of ranks; a checkpoint of strong scaling is of any.
        self.outcomes = self.path if request.ranks == 1 else self.path / f"ranks-{request.ranks}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; the lock goes when this process does, however it does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    "The same run is under way in another process; wait for it, or stop it first."
                ) from None
            yield

    def read(self, planned: Planned) -> dict[str, Any]:
        """The outcome of a phase that has ended, well or not."""
        found: dict[str, Any] = jsonio.read(self.outcomes / f"{planned.stem}.json")
        return found

    def outcome(self, planned: Planned) -> dict[str, Any] | None:
        """The finished outcome of a phase; None where it has none yet or failed."""
        if not (self.outcomes / f"{planned.stem}.json").exists():
            return None
        found = self.read(planned)
        return found if found["status"] == "ok" else None

    def checkpoint(self, planned: Planned) -> Path:
        """File that a full training keeps itself in, whatever the number of ranks."""
        return self.path / f"{planned.phase}-{planned.repeat}.safetensors"

    def open_record(self, device: str, fresh: bool) -> dict[str, Any]:
        """Who this run is and how often it was taken up; kept from its first start on.

        Raises:
            UserError: it was begun on another machine.
        """
        path, machine, booted = self.path / "run.json", environment.collect(device), psutil.boot_time()
        if fresh:
            for stale in [*self.path.glob("*.json"), *self.outcomes.glob("*.json"), *self.path.glob("*.safetensors")]:
                stale.unlink(missing_ok=True)
        if path.exists():
            record: dict[str, Any] = jsonio.read(path)
            check_machine(record["environment"], machine, path)
            record["resumed"] += 1
            if abs(booted - record["booted"]) > RESTART_SECONDS:
                record["booted"] = booted
                record["warnings"].append(RESTARTED)
        else:
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            state = environment.state(device)
            record = {
                "run_id": os.urandom(8).hex(),
                "created": created,
                "resumed": 0,
                "booted": booted,
                "environment": machine,
                "state_before": state,
                "warnings": environment.warnings({**machine, **state}),
            }
        jsonio.write(path, record)
        return record

    def clear(self) -> None:
        """Remove what this run has no more use for; unfinished runs with another number of ranks keep theirs."""
        others = [folder for folder in self.path.glob("ranks-*") if folder != self.outcomes]
        if self.outcomes != self.path:
            others += self.path.glob("[0-9]*.json")
            shutil.rmtree(self.outcomes)
        if not others:
            shutil.rmtree(self.path)


def _meter_to_show(request: Request) -> energy.Meter:
    """What the screen's watts come from. A GPU's are read without a meter: sampling them twice would disturb."""
    if request.device == "cuda" and request.power_watts is None:
        return energy.Unmetered("the state of the GPU tells its power")
    return energy.open_meter(request.device, request.power_watts, time.monotonic)


class Run:
    """One run from plan to result."""

    def __init__(self, request: Request, screen: Display, group: Group = ALONE) -> None:
        self.request, self.screen, self.group = request, screen, group
        self.watch = Watch(request.device, _meter_to_show(request), time.monotonic)
        self.planned = plan(request.profile, request.planned_phases)
        self.ended: set[Planned] = set()

    def execute(self) -> Path:
        """Run, or go on with, all phases; returns the path of the result.

        Raises:
            UserError: data, device or engine cannot be had; nothing has been written to the results folder then.
        """
        data_path, warning = self._locate_data()
        dataset = cifar100.load(data_path, self.request.spec)
        check_data(self.group, dataset)
        self.data = {"source": dataset.source, "checksums": dataset.checksums}
        self.folder = RunFolder(self.request, dataset.checksums)
        del dataset  # 180 MB that the phases need more
        with self.folder.locked():
            self.record = self.folder.open_record(self.request.device, self.request.fresh)
            self.warnings = [*([warning] if warning else []), *self.record["warnings"]]
            self._show_plan()
            while missing := [p for p in self.planned if not self._has_ended(p)] or self._more_repeats():
                for planned in missing:
                    self._run_phase(planned, data_path)
            parallel.agreed(self.group, None)  # tells the other ranks that there is no more to do
            result = self._result()
            path = results.write(result, self.request.out)
            if self.request.keep_weights:
                self._keep_weights(path)
            if all(outcome["status"] == "ok" for outcome in result["phases"]):
                self.folder.clear()
        return path

    def _keep_weights(self, result: Path) -> None:
        """Take the final weights of each full training out of its last checkpoint: timm's names, float32."""
        for planned in self.planned:
            if planned.phase == "convergence" and self.folder.outcome(planned):
                state, _ = load_checkpoint(self.folder.checkpoint(planned))
                weights = {name: state[f"param/{name}"] for name in params.shapes(self.request.spec)}
                path = result.with_name(f"{result.stem}-{planned.repeat + 1}.safetensors")
                params.save(weights, path)
                self.screen.note(f"Weights: {path}")

    def _locate_data(self) -> tuple[Path | None, str | None]:
        try:
            path = cifar100.locate(self.request.data, progress=self.screen.live)
        except cifar100.Unavailable as error:
            return None, f"{error} Measured on the synthetic stand-in instead of CIFAR-100."
        return path, None if path else "measured on the synthetic stand-in, as asked, not on CIFAR-100"

    def _show_plan(self) -> None:
        for text in self.warnings:
            self.screen.warn(text)
        if left_out := [phase for phase in self.request.phases if phase not in self.request.planned_phases]:
            self.screen.note(f"Left out, as they measure one device: {', '.join(left_out)}.")
        self._estimate_with(guessed_rate(self.request.device))
        finished = {p.title for p in self.planned if self.folder.outcome(p)}
        if finished:
            self.screen.note(
                f"Going on with the run of {self.record['created']}: {len(finished)} of {len(self.planned)} phases "
                "are done (--fresh starts over)."
            )
        r = self.request
        self.screen.plan(
            f"{r.platform.name} ({r.engine}) on {r.device}, {r.precision}, profile {r.profile_name}"
            + (f", {r.ranks} ranks, global batch {r.batch_size}" if r.ranks > 1 else ""),
            finished,
        )

    def _estimate_with(self, rate: float) -> None:
        r = self.request
        compiling = r.platform.compile_seconds.get(r.device, 0.0)
        self.screen.estimates = {p.title: estimate(p.phase, r.spec, r.profile, rate, compiling) for p in self.planned}

    def _has_ended(self, planned: Planned) -> bool:
        """Whether this process has run the phase, or an earlier one has with success."""
        return planned in self.ended or self.folder.outcome(planned) is not None

    def _more_repeats(self) -> list[Planned]:
        """Plan one more repeat of each repeated phase whose figure is not yet known closely enough."""
        profile, tolerance = self.request.profile, self.request.spec.measuring.interval_tolerance
        more: list[Planned] = []
        for phase in self.request.planned_phases:
            done = [self.folder.read(p) for p in self.planned if p.phase == phase]
            if phase in FIGURES and 1 < profile.max_repeats > len(done) and all(o["status"] == "ok" for o in done):
                figures = [FIGURES[phase](outcome["measurements"]) for outcome in done]
                if len(figures) < 2 or interval_width(figures) > tolerance:
                    more.append(Planned(phase, len(done), len(self.planned) + len(more)))
        self.planned += more
        self.screen.estimates |= {p.title: self.screen.estimates[f"{p.phase} 1"] for p in more}
        if more:
            names = " and ".join(p.phase for p in more)
            self.screen.note(
                f"One more repeat of {names}: the 95 % interval of the repeats is wider than {100 * tolerance:.0f} %."
            )
        return more

    def _job(self, planned: Planned, data_path: Path | None, stem: str, batch_size: int) -> Job:
        r = self.request
        ranks = r.ranks if planned.phase in phases.PARALLEL else 1
        worker_env = r.platform.worker_env(r.device, r.engine, ranks)
        if self.group.size > 1:  # the phase runs here, with what this process was started with
            worker_env = {name: os.environ.get(name, "") for name in worker_env}
        return Job(
            phase=planned.phase,
            repeat=planned.repeat,
            seed=r.spec.training.seeds[planned.repeat],
            device=r.device,
            engine=r.engine,
            precision=r.precision,
            profile=r.profile_name,
            batch_size=batch_size,
            spec=r.spec.to_dict(),
            data=str(data_path) if data_path else None,
            worker_env=worker_env,
            outcome=str(self.folder.outcomes.absolute() / f"{stem}.json"),
            checkpoint=str(self.folder.checkpoint(planned).absolute()),
            stop=r.stop,
            power_watts=r.power_watts,
            ranks=ranks,
            timeout=r.rank_timeout,
        )

    def _run_phase(self, planned: Planned, data_path: Path | None) -> None:
        self.screen.phase_starts(planned.title)
        start = time.monotonic()
        self.watch.start()
        job = self._job(planned, data_path, planned.stem, self.request.batch_size)
        try:
            if planned.phase == "max_batch":
                self._search_max_batch(planned, job, data_path)
            elif self.group.size > 1:
                self._run_here(job)
            elif job.ranks > 1:
                self._run_ranks(job)
            else:
                self._run_job(job, Limits())
        finally:
            conditions = self.watch.stop()
            self.screen.close()
        if self.group is not ALONE:
            conditions["cpu_foreign_share"] = None  # other ranks on this host cannot be told from strangers
        self.ended.add(planned)
        seconds, outcome = time.monotonic() - start, {**self.folder.read(planned), "conditions": conditions}
        jsonio.write(Path(job.outcome), outcome)
        self.screen.phase_ends(planned.title, seconds, outcome["reason"], verdicts.of_phase(outcome, self.request.spec))
        for text in watch.warnings({planned.title: conditions}):
            self.screen.warn(text)
        self._learn(planned, outcome, seconds)

    def _progress(self, done: float, text: str, **figures: float) -> None:
        """Pass on what a phase process tells, with the power that the parent sees."""
        watts = {} if self.watch.watts is None else {"watts": self.watch.watts}
        self.screen.progress(done, text, **figures, **watts)

    def _run_job(self, job: Job, limits: Limits) -> tuple[dict[str, Any], Ended]:
        """Run one phase process; its outcome is on disk afterwards, whatever became of the process."""
        path = Path(job.outcome)
        path.unlink(missing_ok=True)  # of a try that failed
        start, log = time.monotonic(), path.with_suffix(".log")
        ended = run_job(self.request.platform, job, path.with_suffix(".job"), log, self._progress, limits)
        if ended.status == phases.EXIT_USER_ERROR:
            raise UserError(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])
        if not path.exists():
            failed = phases.failure(ended.describe(log))
            jsonio.write(path, phases.outcome(job, time.monotonic() - start, failed))
        return jsonio.read(path), ended

    def _run_ranks(self, job: Job) -> None:
        """Run a phase in several processes of this host."""
        path = Path(job.outcome)
        path.unlink(missing_ok=True)
        start = time.monotonic()
        job_path, log = path.with_suffix(".job"), path.with_suffix(".log")
        reason = launch.run_ranks(self.request.platform, job, job_path, log, self._progress)
        if reason is not None:
            jsonio.write(path, phases.outcome(job, time.monotonic() - start, phases.failure(reason)))

    def _run_here(self, job: Job) -> None:
        """Run a phase in this process, rank 0, and have the other ranks run it too.

        Raises:
            UserError: it failed; what has become of the other ranks is not known then.
        """
        start = time.monotonic()

        def keep(part: dict[str, Any]) -> None:
            jsonio.write(Path(job.outcome), phases.outcome(job, time.monotonic() - start, part))

        if job.ranks > 1:
            parallel.agreed(self.group, asdict(job))
        try:
            keep(run_here(self.request.platform, job, self._progress, lambda why: keep(phases.failure(why))))
        except UserError:
            raise
        except Exception as error:
            keep(phases.failure(phases.reason_of(error)))
            raise UserError(
                f"{job.phase} failed: {phases.reason_of(error)}. Finished phases are kept; the same command goes on."
            ) from error

    def _search_max_batch(self, planned: Planned, job: Job, data_path: Path | None) -> None:
        """Drive the search, a process a try; finished tries of an earlier process are kept."""
        r = self.request
        bound = memory_bound(r.device, r.memory_share)
        backend: dict[str, Any] | None = None
        start = time.monotonic()

        def attempt(batch_size: int) -> max_batch.Try:
            nonlocal backend
            self.screen.progress(0.0, f"batch {batch_size}")
            tried = self._job(planned, data_path, f"{planned.stem}.batch-{batch_size}", batch_size)
            if Path(tried.outcome).exists():
                outcome, ended = jsonio.read(Path(tried.outcome)), None
            else:
                outcome, ended = self._run_job(tried, Limits(bound, r.profile.max_batch_seconds))
            backend = outcome["backend"] or backend
            return classify(batch_size, outcome, ended)

        largest = min(r.largest_batch, r.spec.data.train_images)
        found = max_batch.search(attempt, r.spec.training.batch_size, largest, bound)
        measured = asdict(found)
        if found.batch_size is None:
            part = phases.failure(f"not even batch {r.spec.training.batch_size} trains: {found.tries[-1].reason}")
        else:
            part = {"status": "ok", "reason": None, "startup": None, "backend": backend, "measurements": measured}
        jsonio.write(Path(job.outcome), phases.outcome(job, time.monotonic() - start, part))

    def _learn(self, planned: Planned, outcome: dict[str, Any], seconds: float) -> None:
        """Correct the estimates of what is to come by what was seen."""
        if outcome["status"] != "ok":
            return
        if planned.phase == "ceiling":
            self._estimate_with(0.5 * verdicts.ceiling_flops(outcome["measurements"]))
        for other in self.planned:
            if other.phase == planned.phase:
                self.screen.estimates[other.title] = seconds

    def _parallel(self, outcomes: list[dict[str, Any]]) -> dict[str, Any] | None:
        """What connected the ranks, as the first phase that they shared says; None for one process."""
        if self.request.ranks == 1:
            return None
        told = [outcome["backend"]["details"] for outcome in outcomes if outcome["backend"]]
        found: dict[str, Any] = next((details for details in told if "ranks" in details), {})
        return {
            "world_size": self.request.ranks,
            "scaling": self.request.scaling,
            **{key: found.get(f"ranks_{key}") for key in ("engine", "transport", "hosts")},
        }

    def _result(self) -> dict[str, Any]:
        r, outcomes = self.request, [self.folder.read(planned) for planned in self.planned]
        initial = params.initial(r.spec)
        software = environment.software()
        if software["git_clean"] is False:
            self.warnings.append("measured from a checkout with uncommitted changes")
        disturbed = watch.warnings({p.title: o["conditions"] for p, o in zip(self.planned, outcomes, strict=True)})
        content = r.spec.to_dict()
        return {
            "schema_version": results.SCHEMA_VERSION,
            "run_id": self.record["run_id"],
            "created": self.record["created"],
            "platform": r.platform.name,
            "engine": r.engine,
            "device": r.device,
            "precision": r.precision,
            "parallel": self._parallel(outcomes),
            "profile": {"name": r.profile_name, "content": content["profiles"][r.profile_name]},
            "spec": {
                "name": r.spec.name,
                "fingerprint": r.spec.fingerprint,
                "standard": r.spec.is_standard,
                "content": content,
            },
            "data": self.data,
            "initial_params": {
                "seed": r.spec.init.seed,
                "fingerprint": params.fingerprint(initial),
                "count": params.count(r.spec),
            },
            "software": software,
            "environment": environment.scrub(self.record["environment"]),
            "state_before": environment.scrub(self.record["state_before"]),
            "state_after": environment.scrub(environment.state(r.device)),
            "resumed": self.record["resumed"],
            "warnings": environment.scrub([*self.warnings, *disturbed]),
            "phases": outcomes,
        }


def run_here(
    platform: Platform, job: Job, progress: harness.Progress, on_stall: Callable[[str], None]
) -> dict[str, Any]:
    """Run a phase as one of the ranks, in this process, which ends itself when nothing moves for the timeout."""
    watchdog = parallel.Watchdog(job.timeout, on_stall)

    def beating(done: float, text: str, **figures: float) -> None:
        watchdog.beat()
        progress(done, text, **figures)

    with watchdog.on_guard():
        return phases.perform(platform, job, beating)


def check_data(group: Group, dataset: cifar100.Dataset) -> None:
    """Raise UserError, on all ranks alike, unless they have found the same data."""
    try:
        parallel.check_same(group, json.dumps([dataset.source, dataset.checksums]), "data")
    except parallel.RanksApart as error:
        raise UserError(f"{error}: put the same CIFAR-100 on all hosts, or give all --data synthetic.") from error


def follow(request: Request, group: Group) -> None:
    """What a rank other than 0 does: run the phases that rank 0 names, until it names no more.

    Raises:
        UserError: this rank has no data, or other data than rank 0.
    """
    try:
        data_path = cifar100.locate(request.data, progress=False)
    except cifar100.Unavailable:
        data_path = None
    check_data(group, cifar100.load(data_path, request.spec))
    while (content := parallel.agreed(group, None)) is not None:
        job = Job(**content | {"data": str(data_path) if data_path else None})
        run_here(request.platform, job, harness.silent, lambda why: print(f"rank {group.rank}: {why}", file=sys.stderr))
