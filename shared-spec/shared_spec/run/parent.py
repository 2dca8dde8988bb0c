"""The parent of a run: plans, starts each phase in a fresh process, watches, and writes the result.

It imports no framework. What a phase has measured is on disk, whole or not at all, the moment the phase ends
(results/.runs/KEY/), so that whatever is killed, running again goes on from there.

A run of several ranks comes about in two ways. On one host `--nproc` has the parent start each parallel phase through
the engine's launcher in place of a plain process (launch.py). On several, the user has the engine's launcher start
`run` itself, once a rank: then the phases run in these processes, rank 0 is the parent, and the others do what it says
(`follow`).
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shared_spec import places, ranks
from shared_spec.data import cifar100
from shared_spec.data.dataset import Identity
from shared_spec.errors import UserError
from shared_spec.machine import watch
from shared_spec.machine.energy.meter import Meter, Unmetered
from shared_spec.machine.energy.open import open_meter
from shared_spec.machine.watch import Watch
from shared_spec.measure.checkpoint import load_checkpoint
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import silent
from shared_spec.ranks import ALONE, Group
from shared_spec.results import format, reference, verdicts
from shared_spec.results.format import Result
from shared_spec.results.measurements import Convergence
from shared_spec.run import awake, fitness, phases, result, worker
from shared_spec.run.folder import RESERVE_BYTES, RunFolder
from shared_spec.run.job import Job
from shared_spec.run.plan import EARLY_END_SHARE, Plan, Planned
from shared_spec.run.request import Request
from shared_spec.run.screen import Display, PlannedRow, duration
from shared_spec.run.start import Starter
from shared_spec.workload import params


def execute(request: Request, display: Display, group: Group = ALONE) -> tuple[Path, Result]:
    """Run, or go on with, all phases; returns the path of the result, and the result.

    Raises:
        UserError: data, device or engine cannot be had; nothing has been written to the results folder then.
    """
    fitness.refuse(request.platform, request.setting, request.emulated)
    places.check_results(request.out, needed_bytes(request))
    foreign_share = watch.foreign_share(monotonic)
    data, warnings = _located(request, display.live)
    identity = _agreed_identity(group, data, request)
    folder = RunFolder(request, identity.checksums)
    with folder.locked() as unlocked, awake.kept(display.note):
        record = folder.open_record(request.setting.device, request.fresh)
        warnings += [*record["warnings"], *([unlocked] if unlocked else [])]
        warnings += fitness.cautions(request.platform, request.setting.device, record["environment"])
        run = Run(request, display, folder, data, group)
        for text in warnings:
            display.warn(text)
        run.show_plan(record["created"])
        run.show_how_busy(foreign_share())
        for lack in fitness.lacks(request.setting, record["environment"], record["state_before"]):
            display.note(str(lack))

        def write() -> tuple[Path, Result]:
            wide = run.plan.wide_intervals(run.figure)
            built = result.build(request, run.plan, folder, record, identity, warnings, wide)
            return format.write(built, request.out), built

        run.to_the_end(write)
        ranks.agreed(group, None)  # tells the other ranks that there is no more to do
        folder.give_up_reserve()
        path, built = write()
        if request.keep_weights:
            run.keep_weights(path)
        if len(run.plan.kept) == len(run.plan.processes):
            folder.clear()
    return path, built


def close(request: Request, display: Display) -> Result:
    """Write the result of what an unfinished run has; it can be gone on with all the same.

    Raises:
        UserError: there is no such run, it is under way, or nothing of it has ended.
    """
    data, warnings = _located(request, display.live)
    identity = cifar100.identity(data, request.setting.spec)
    folder = RunFolder(request, identity.checksums)
    none = f"{folder.path.parent}: there is no unfinished run of this kind; give --close the options that it was started with."
    if not folder.has_record():
        raise UserError(none)
    with folder.locked():
        record = folder.read_record()
        run = Run(request, display, folder, data, ALONE)
        if not any(folder.outcome(planned).status for planned in run.plan.processes):
            raise UserError(
                f"{folder.path}: nothing of this run has ended yet; the same command without --close goes on."
            )
        wide = run.plan.wide_intervals(run.figure)
        built = result.build(request, run.plan, folder, record, identity, [*warnings, *record["warnings"]], wide)
        path = format.write(built, request.out)
    lacking = [f"{one.phase} {one.repeat + 1} (seed {one.seed})" for one in built.missing or ()]
    display.note(f"Missing: {', '.join(lacking) or 'nothing'}. The same command without --close goes on with the run.")
    display.result(str(path), [])
    return built


BUSY_SLOWDOWN = 4.0
"""How much longer a run takes for all of the processor that others take: on two cores with two other busy processes 37
minutes instead of 7, as the threads of a step wait for the one that had to stop."""


def needed_bytes(request: Request) -> int:
    """Room that a run takes in the results folder: outcomes and logs, and checkpoints of a training, an old and a new."""
    setting = request.setting
    trained = phases.CONVERGENCE in request.planned_phases
    kept = setting.profile.convergence_repeats * (3 + request.keep_weights) + 3 if trained else 0
    return RESERVE_BYTES + (4 << 20) + 4 * params.count(setting.spec) * kept


class Run:
    """The phases of one run: which are left, and what becomes of each.

    Args:
        data: folder of the real files, or None for the synthetic stand-in.
    """

    def __init__(self, request: Request, display: Display, folder: RunFolder, data: Path | None, group: Group) -> None:
        self.request, self.display, self.folder, self.group = request, display, folder, group
        self.plan = Plan(request)
        for planned in [*self.plan.processes]:
            if folder.outcome(planned).is_whole():
                self.plan.keep(planned)
        for phase in [phase for phase in request.planned_phases if phase.figure]:
            self._take_up_added(phase)
        self.watch = Watch(request.setting.device, _meter_to_show(request), monotonic)
        self.starter = Starter(request, folder, data, group, self._progress)
        self._under_way: Planned
        self._figures: dict[Planned, float] = {}

    def show_plan(self, created: str) -> None:
        """Say what is to come; `created` is when this run was first started."""
        request, setting, kept = self.request, self.request.setting, self.plan.kept
        if left_out := [phase.name for phase in request.phases if phase not in request.planned_phases]:
            self.display.note(f"Left out, as they measure one device: {', '.join(left_out)}.")
        if kept:
            self.display.note(
                f"Going on with the run of {created}: {len(kept)} of {len(self.plan.processes)} phases "
                "are done (--fresh starts over)."
            )
        heading = (
            f"{request.platform.name} ({setting.engine}) on {setting.device}, {setting.precision}, "
            f"profile {setting.profile_name}"
        )
        if setting.ranks > 1:
            heading += f", {setting.ranks} ranks, global batch {request.batch_size}"
        rows = [PlannedRow(p.title, self.plan.estimate(p), p in kept) for p in self.plan.processes]
        self.display.plan(heading, rows, self.plan.remaining)

    def show_how_busy(self, foreign_share: float | None) -> None:
        """Say what the plan is worth on a machine on which others work, and what helps."""
        if foreign_share is None or foreign_share <= watch.FOREIGN_SHARE:
            return
        words = f"this machine is busy: other processes take {foreign_share:.0%} of its processor."
        if self.request.setting.device == "cpu":
            longer = self.plan.remaining * (1 + BUSY_SLOWDOWN * foreign_share)
            words += f" On one so busy all this takes about {duration(longer)}, and its figures are not the machine's."
        else:
            words += " The device may wait for the host then."
        self.display.warn(f"{words} Waiting, or closing other programs, helps.")

    def _take_up_added(self, phase: phases.Phase) -> None:
        """Plan the repeats that an earlier start has added, and keep them."""
        repeats = sum(planned.phase is phase for planned in self.plan.processes)
        while self.folder.outcome(Planned(phase, repeats)).is_whole():
            self.plan.keep(self.plan.add(phase))
            repeats += 1

    def to_the_end(self, write: Callable[[], object]) -> None:
        """Run what is left, and repeats until the figures are known closely enough, before what takes longer.

        Args:
            write: writes the result as far as it has come; called after each full training.
        """
        while True:
            waiting = self.plan.waiting
            if (not waiting or waiting[0].phase.runs_to_its_end) and self._add_repeats():
                continue
            if not waiting:
                break
            self._run_phase(waiting[0])
            if waiting[0].phase is phases.CONVERGENCE and len(waiting) > 1:
                self._write_so_far(write)
        for name, width in self.plan.wide_intervals(self.figure).items():
            self.display.warn(f"{name}: the repeats ended with a 95 % interval of their mean {width:.1%} wide.")

    def _write_so_far(self, write: Callable[[], object]) -> None:
        """What has been measured is kept in .runs anyway, so that nothing ends where this fails."""
        try:
            write()
        except (OSError, UserError) as error:
            self.display.warn(f"the result so far could not be written: {error}")

    def _add_repeats(self) -> list[Planned]:
        added = self.plan.add_repeats(self.figure)
        if added:
            names = " and ".join(planned.phase.name for planned in added)
            tolerance = self.request.setting.spec.measuring.interval_tolerance
            self.display.note(
                f"One more repeat of {names}: the 95 % interval of the repeats is wider than {100 * tolerance:.0f} %."
            )
        return added

    def figure(self, planned: Planned) -> float:
        """The figure of a phase that has ended well; its outcome is read once."""
        if planned not in self._figures:
            self._note_figure(planned, format.parse_outcome(self.folder.outcome(planned).read()).measurements)
        return self._figures[planned]

    def _note_figure(self, planned: Planned, measured: phases.Measured | None) -> None:
        if planned.phase.figure and measured is not None:
            self._figures[planned] = planned.phase.figure(measured)

    def _run_phase(self, planned: Planned) -> None:
        """Run a phase under watch, add to its outcome what was seen of the machine, and say what it has measured."""
        self._under_way = planned
        self.display.phase_starts(planned.title, self.plan.estimate(planned))
        self.plan.begin(planned)
        limit = self.plan.limit(planned)
        self.watch.start()
        try:
            self.starter.run(planned, limit)
        finally:
            conditions = self.watch.stop()
            self.display.close()
        if self.group is not ALONE:
            conditions["cpu_foreign_share"] = None  # other ranks on this host cannot be told from strangers
        file = self.folder.outcome(planned)
        content = file.read()
        if limit is not None and content["seconds"] > EARLY_END_SHARE * limit and not planned.phase.runs_to_its_end:
            conditions["ended_early"] = True
        outcome = format.parse_outcome({**content, "conditions": conditions})
        file.write(outcome.to_dict())
        measured = outcome.measurements
        self._note_figure(planned, measured)
        before = self.plan.remaining - self.plan.estimate(planned)
        seconds = self.plan.end(planned, measured)
        verdict = "" if measured is None else planned.phase.verdict(measured, self.request.setting.spec)
        verdict += "" if measured is None else verdicts.of_checks(measured)
        self.display.phase_ends(planned.title, seconds, outcome.reason, verdict)
        for text in watch.warnings({planned.title: conditions}):
            self.display.warn(text)
        if isinstance(measured, Convergence) and self.starter.data is not None:
            for text in reference.flags(measured, self.request.setting.spec, "cifar-100"):
                self.display.warn(f"{planned.title}: {text}")
        if planned.phase.flops and measured is not None and self._is_corrected(before):
            self.display.note(f"By this rate the rest takes about {duration(self.plan.remaining)}.")

    def _is_corrected(self, before: float) -> bool:
        """Whether what is left takes another time than was thought `before`, by more than a fifth."""
        return abs(self.plan.remaining - before) > 0.2 * before

    def _progress(self, done: float, text: str, **figures: float) -> None:
        """Pass on what a phase process tells, with the power that the parent sees."""
        if self.watch.watts is not None:
            figures["watts"] = self.watch.watts
        self.display.progress(self._under_way.title, done, text, figures, self.plan.left(self._under_way, done))

    def keep_weights(self, path: Path) -> None:
        """Leave the final weights of each full training beside the result at `path`: timm's names, float32."""
        for planned in self.plan.kept:
            if planned.phase is phases.CONVERGENCE:
                state, _ = load_checkpoint(self.folder.checkpoint(planned))
                weights = {name: state[f"param/{name}"] for name in params.shapes(self.request.setting.spec)}
                trained = self.folder.outcome(planned).read()["measurements"]["final_params"]
                if params.fingerprint(weights) != trained:
                    self.display.warn(
                        f"the weights of {planned.title} could not be kept: its last checkpoint is missing"
                    )
                    continue
                kept = path.with_name(f"{path.stem}-{planned.repeat + 1}.safetensors")
                params.save(weights, kept)
                self.display.note(f"Weights: {kept}")


def follow(request: Request, group: Group) -> None:
    """What a rank other than 0 does: run the phases that rank 0 names, until it names no more.

    Raises:
        UserError: this rank has no data, or other data than rank 0.
    """
    data, _ = _located(request, progress=False)
    _agreed_identity(group, data, request)
    while (content := ranks.agreed(group, None)) is not None:
        job = replace(Job.from_json(content), data=data)
        worker.perform_watched(
            request.platform,
            job,
            silent,
            lambda failure: print(f"rank {group.rank}: {failure.reason}", file=sys.stderr),
        )


def _located(request: Request, progress: bool) -> tuple[Path | None, list[str]]:
    """Folder of the real files, or None for the stand-in; and what a reader must know of that."""
    try:
        path = cifar100.locate(request.data, progress)
    except cifar100.Unavailable as error:
        return None, [f"{error} Measured on the synthetic stand-in instead of CIFAR-100."]
    if path is None:
        return None, ["measured on the synthetic stand-in, as asked, not on CIFAR-100"]
    if not places.is_usual(path) and path.parent.name == places.CACHE:
        return path, [f"no home folder takes files: CIFAR-100 is kept in {path}, which may go with the next restart"]
    return path, []


def _agreed_identity(group: Group, data: Path | None, request: Request) -> Identity:
    """Which data this is; the same on all ranks, or a UserError on all of them."""
    identity = cifar100.identity(data, request.setting.spec)
    try:
        ranks.check_same(group, json.dumps([identity.source, identity.checksums]), "data")
    except ranks.RanksApart as error:
        raise UserError(f"{error}: put the same CIFAR-100 on all hosts, or give all --data synthetic.") from error
    return identity


def _meter_to_show(request: Request) -> Meter:
    """What the screen's watts come from. A GPU's are read without a meter: sampling them twice would disturb."""
    device, power = request.setting.device, request.setting.wall_power
    if power is not None and power.load is None:
        power = None  # a plug's log is not read before the end
    if device == "cuda" and power is None:
        return Unmetered("the state of the GPU tells its power")
    return open_meter(device, power, monotonic)
