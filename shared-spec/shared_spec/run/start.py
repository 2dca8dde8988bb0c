"""Starting a phase: in a process of its own, in one a rank, in one a try, or in this very process as rank 0."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared_spec import ranks, schema
from shared_spec.errors import UserError
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Progress
from shared_spec.ranks import Group
from shared_spec.results.format import Failed, TryDone
from shared_spec.results.measurements import MaxBatch, Try
from shared_spec.run import max_batch, phases, worker
from shared_spec.run.child import TOO_SLOW, UNLIMITED, Limits, run_child
from shared_spec.run.folder import RunFolder
from shared_spec.run.job import Failure, Job
from shared_spec.run.launch import run_ranks
from shared_spec.run.plan import EARLY_END_SHARE, Planned
from shared_spec.run.request import Request


class Starter:
    """Runs phases; the outcome of each is on disk when it has ended, however it ended.

    Args:
        data: folder of the real files, or None for the synthetic stand-in.
        group: the ranks that run phases together where an engine's launcher has started them all.
        progress: is told how each phase goes.
    """

    def __init__(
        self, request: Request, folder: RunFolder, data: Path | None, group: Group, progress: Progress
    ) -> None:
        self.request, self.folder, self.data, self.group, self.progress = request, folder, data, group, progress

    def run(self, planned: Planned, limit: float | None = None) -> None:
        """Run a phase to its end.

        Args:
            limit: seconds after which it is stopped; after half of them it ends with what it has.

        Raises:
            UserError: it cannot run at all here; or it failed in this process, and what has become of the other ranks
                is not known.
        """
        job = self._job(planned, self.request.batch_size)
        if limit is not None:
            job = replace(job, early_end_seconds=EARLY_END_SHARE * limit)
        if planned.phase.search:
            self._search(planned, job)
        elif self.group.size > 1:
            self._run_here(replace(job, started=monotonic()))
        else:
            self._run_apart(job, Limits(seconds=limit))

    def _job(self, planned: Planned, batch_size: int, part: str = "") -> Job:
        platform, setting = self.request.platform, self.request.setting
        if planned.phase.ranks != "all":
            setting = replace(setting, ranks=1)
        worker_env = platform.worker_env(setting.device, setting.engine, setting.compute_threads(platform.world()))
        worker_env |= platform.phase_env(planned.phase.name, setting.device)
        if self.group.size > 1:  # the phase runs here, with what this process was started with
            worker_env = {name: os.environ.get(name, "") for name in worker_env}
        return Job(
            phase=planned.phase.name,
            repeat=planned.repeat,
            seed=planned.seed(setting.spec),
            setting=setting,
            batch_size=batch_size,
            data=self.data,
            worker_env=worker_env,
            outcome=self.folder.outcome(planned, part),
            checkpoint=self.folder.checkpoint(planned),
            machine=self.folder.machine,
        )

    def _run_apart(self, job: Job, limits: Limits = UNLIMITED) -> None:
        """Run a phase in a process of its own, or in one a rank."""
        job.forget()
        start = monotonic()
        if job.setting.ranks > 1:
            failure = run_ranks(self.request.platform, job, self.progress, limits.seconds)
        else:
            failure = run_child(self.request.platform, job, self.progress, limits)
        if failure is not None:
            if failure.reason == TOO_SLOW and limits.seconds is not None:
                failure = failure._replace(reason=f"{TOO_SLOW} ({limits.seconds:,.0f} s); {self._way_out(job)}")
            job.keep(failure.part(), monotonic() - start)

    def _way_out(self, job: Job) -> str:
        if self.request.phases and phases.BY_NAME[job.phase].search:
            return "a try of one batch size has no more"
        return (
            f"that is {self.request.time_limit:g} times its estimate and five minutes, on a machine that is busy or slow: "
            "close other programs, or give it more with --time-limit (0: no limit)"
        )

    def _run_here(self, job: Job) -> None:
        """Run a phase in this process, rank 0, and have the other ranks run it too."""
        start = monotonic()

        def keep(part: dict[str, Any]) -> None:
            job.keep(part, monotonic() - start)

        if job.setting.ranks > 1:
            ranks.agreed(self.group, job.to_json())
        try:
            platform = self.request.platform
            keep(worker.perform_watched(platform, job, self.progress, lambda failure: keep(failure.part())))
        except UserError:
            raise
        except Exception as error:
            failure = worker.failure_of(error)
            keep(failure.part())
            raise UserError(
                f"{job.phase} failed: {failure.reason}. Finished phases are kept; the same command goes on."
            ) from error

    def _search(self, planned: Planned, job: Job) -> None:
        """Search for the largest batch, a process a try; finished tries of an earlier start are kept."""
        setting, start = job.setting, monotonic()
        bound = max_batch.memory_bound(setting.device, self.request.memory_share)
        outcomes: list[TryDone | Failed] = []

        def attempt(batch_size: int, whole: bool = False) -> Try:
            nonlocal bound
            self.progress(0.0, f"batch {batch_size}" + ", a whole window" * whole)
            one = replace(self._job(planned, batch_size, f".batch-{batch_size}" + "-whole" * whole), whole_window=whole)
            if one.outcome.status is None:
                longer = setting.profile.window_seconds if whole else 0.0
                self._run_apart(one, Limits(bound, setting.profile.max_batch_seconds + longer))
            content = one.outcome.read()
            kind: type[TryDone | Failed] = TryDone if content["status"] == "ok" else Failed
            outcomes.append(schema.parse(kind, content))
            bound = max_batch.tightened(bound, outcomes[-1])
            return max_batch.classify(batch_size, outcomes[-1])

        smallest = setting.spec.training.batch_size
        largest = min(self.request.largest_batch, setting.spec.data.train_images)
        found = max_batch.search(attempt, smallest, largest, lambda: bound)
        found = max_batch.confirmed(found, lambda batch_size: attempt(batch_size, whole=True))
        if found.batch_size is None:
            last = outcomes[-1]
            part = Failure(last.failure or "fault", f"not even batch {smallest} trains: {last.reason}").part()
        else:
            backend = next(outcome.backend for outcome in reversed(outcomes) if outcome.backend)
            measured = MaxBatch(batch_size=found.batch_size, ended_by=found.ended_by, tries=tuple(found.tries))
            part = worker.ended_well(backend.to_dict(), measured, None)
            part["ran"] = [one.to_dict() for outcome in outcomes for one in outcome.ran or ()]
        job.keep(part, monotonic() - start)
