"""The parent of a run: plans, starts a fresh process for each phase, shows progress, resumes, writes the result.

It imports no framework. What a phase found is on disk, whole or not at all, the moment the phase ends
(results/.runs/KEY/), so that whatever is killed, running again goes on from there.

A run of several ranks comes about in two ways. On one host `--nproc` has the parent start each parallel phase through
the engine's launcher in place of a plain process (launch.py). On several, the user has the engine's launcher start
`run` itself, once a rank: then the phases run in these processes, rank 0 is the parent, and the others do what it says
(`follow`).
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from shared_spec import files
from shared_spec import ranks as shared_ranks
from shared_spec.data import cifar100
from shared_spec.errors import UserError
from shared_spec.machine import facts, watch
from shared_spec.machine.energy.meter import Meter, Unmetered
from shared_spec.machine.energy.open import open_meter
from shared_spec.machine.watch import Watch
from shared_spec.measure import blocks
from shared_spec.measure.convergence import load_checkpoint
from shared_spec.platform import Platform
from shared_spec.ranks import ALONE, Group
from shared_spec.results import format, verdicts
from shared_spec.results.format import FailureKind
from shared_spec.results.stability import interval_width
from shared_spec.run import launch, max_batch, worker
from shared_spec.run.child import Limits, run_job
from shared_spec.run.folder import RunFolder
from shared_spec.run.job import EXIT_USER_ERROR, PARALLEL, Job, failure, outcome_of
from shared_spec.run.plan import Planned, Request, estimate, guessed_rate, plan
from shared_spec.run.screen import Display
from shared_spec.workload import params

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
    if (limit := facts.memory_limit()) is not None:
        limits.append(share * limit)
    return float(min(limits))


VERDICTS = {None: max_batch.FITS, "out_of_memory": max_batch.OUT_OF_MEMORY, "too_slow": max_batch.TOO_SLOW}
"""What the failure of a try, or that there was none, says of its batch size."""


def classify(batch_size: int, outcome: dict[str, Any]) -> max_batch.Try:
    """What a try of one batch size says: it fits, memory ran out, it was too slow, or something else is wrong."""
    verdict = VERDICTS.get(outcome["failure"], max_batch.FAULT)
    return max_batch.Try(batch_size, verdict, outcome["reason"], outcome["measurements"])


def _meter_to_show(request: Request) -> Meter:
    """What the screen's watts come from. A GPU's are read without a meter: sampling them twice would disturb."""
    if request.device == "cuda" and request.power_watts is None:
        return Unmetered("the state of the GPU tells its power")
    return open_meter(request.device, request.power_watts, time.monotonic)


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
            shared_ranks.agreed(self.group, None)  # tells the other ranks that there is no more to do
            result = format.parse(self._result())
            path = format.write(result, self.request.out)
            if self.request.keep_weights:
                self._keep_weights(path)
            if all(outcome.status == "ok" for outcome in result.phases):
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
        ranks = r.ranks if planned.phase in PARALLEL else 1
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
        files.write(Path(job.outcome), outcome)
        self.screen.phase_ends(planned.title, seconds, outcome["reason"], verdicts.of_phase(outcome, self.request.spec))
        for text in watch.warnings({planned.title: conditions}):
            self.screen.warn(text)
        self._learn(planned, outcome, seconds)

    def _progress(self, done: float, text: str, **figures: float) -> None:
        """Pass on what a phase process tells, with the power that the parent sees."""
        watts = {} if self.watch.watts is None else {"watts": self.watch.watts}
        self.screen.progress(done, text, **figures, **watts)

    def _run_job(self, job: Job, limits: Limits) -> dict[str, Any]:
        """Run one phase process; its outcome is on disk afterwards, whatever became of the process."""
        path = Path(job.outcome)
        path.unlink(missing_ok=True)  # of a try that failed
        start, log = time.monotonic(), path.with_suffix(".log")
        ended = run_job(self.request.platform, job, path.with_suffix(".job"), log, self._progress, limits)
        if ended.status == EXIT_USER_ERROR:
            raise UserError(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])
        if not path.exists():
            failed = failure(ended.kind, ended.describe(log))
            files.write(path, outcome_of(job, time.monotonic() - start, failed))
        outcome: dict[str, Any] = files.read(path)
        return outcome

    def _run_ranks(self, job: Job) -> None:
        """Run a phase in several processes of this host."""
        path = Path(job.outcome)
        path.unlink(missing_ok=True)
        start = time.monotonic()
        job_path, log = path.with_suffix(".job"), path.with_suffix(".log")
        failed = launch.run_ranks(self.request.platform, job, job_path, log, self._progress)
        if failed is not None:
            files.write(path, outcome_of(job, time.monotonic() - start, failure(*failed)))

    def _run_here(self, job: Job) -> None:
        """Run a phase in this process, rank 0, and have the other ranks run it too.

        Raises:
            UserError: it failed; what has become of the other ranks is not known then.
        """
        start = time.monotonic()

        def keep(part: dict[str, Any]) -> None:
            files.write(Path(job.outcome), outcome_of(job, time.monotonic() - start, part))

        if job.ranks > 1:
            shared_ranks.agreed(self.group, asdict(job))
        try:
            keep(run_here(self.request.platform, job, self._progress, lambda why: keep(failure("ranks", why))))
        except UserError:
            raise
        except Exception as error:
            kind, reason = worker.failure_of(error)
            keep(failure(kind, reason))
            raise UserError(
                f"{job.phase} failed: {reason}. Finished phases are kept; the same command goes on."
            ) from error

    def _search_max_batch(self, planned: Planned, job: Job, data_path: Path | None) -> None:
        """Drive the search, a process a try; finished tries of an earlier process are kept."""
        r = self.request
        bound = memory_bound(r.device, r.memory_share)
        backend: dict[str, Any] | None = None
        failures: list[FailureKind] = []
        start = time.monotonic()

        def attempt(batch_size: int) -> max_batch.Try:
            nonlocal backend
            self.screen.progress(0.0, f"batch {batch_size}")
            tried = self._job(planned, data_path, f"{planned.stem}.batch-{batch_size}", batch_size)
            if Path(tried.outcome).exists():
                outcome = files.read(Path(tried.outcome))
            else:
                outcome = self._run_job(tried, Limits(bound, r.profile.max_batch_seconds))
            backend = outcome["backend"] or backend
            failures.append(outcome["failure"])
            return classify(batch_size, outcome)

        largest = min(r.largest_batch, r.spec.data.train_images)
        found = max_batch.search(attempt, r.spec.training.batch_size, largest, bound)
        measured = asdict(found)
        if found.batch_size is None:
            part = failure(
                failures[-1], f"not even batch {r.spec.training.batch_size} trains: {found.tries[-1].reason}"
            )
        else:
            part = {
                "status": "ok", "failure": None, "reason": None, "startup": None, "backend": backend,
                "measurements": measured,
            }  # fmt: skip
        files.write(Path(job.outcome), outcome_of(job, time.monotonic() - start, part))

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
        software = facts.software()
        if software["git_clean"] is False:
            self.warnings.append("measured from a checkout with uncommitted changes")
        disturbed = watch.warnings({p.title: o["conditions"] for p, o in zip(self.planned, outcomes, strict=True)})
        content = r.spec.to_dict()
        return {
            "schema_version": format.SCHEMA_VERSION,
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
            "environment": facts.scrub(self.record["environment"]),
            "state_before": facts.scrub(self.record["state_before"]),
            "state_after": facts.scrub(facts.state(r.device)),
            "resumed": self.record["resumed"],
            "warnings": facts.scrub([*self.warnings, *disturbed]),
            "headline_memory": r.platform.headline_memory,
            "phases": outcomes,
        }


def run_here(
    platform: Platform, job: Job, progress: blocks.Progress, on_stall: Callable[[str], None]
) -> dict[str, Any]:
    """Run a phase as one of the ranks, in this process, which ends itself when nothing moves for the timeout."""
    watchdog = shared_ranks.Watchdog(job.timeout, on_stall)

    def beating(done: float, text: str, **figures: float) -> None:
        watchdog.beat()
        progress(done, text, **figures)

    with watchdog.on_guard():
        return worker.perform(platform, job, beating)


def check_data(group: Group, dataset: cifar100.Dataset) -> None:
    """Raise UserError, on all ranks alike, unless they have found the same data."""
    try:
        shared_ranks.check_same(group, json.dumps([dataset.source, dataset.checksums]), "data")
    except shared_ranks.RanksApart as error:
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
    while (content := shared_ranks.agreed(group, None)) is not None:
        job = Job(**content | {"data": str(data_path) if data_path else None})
        run_here(request.platform, job, blocks.silent, lambda why: print(f"rank {group.rank}: {why}", file=sys.stderr))
