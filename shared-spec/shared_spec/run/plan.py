"""The phase processes of a run in order, and how long they will take: guessed first, then corrected by what was seen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from shared_spec.measure.clock import Clock, monotonic
from shared_spec.results.stability import interval_width
from shared_spec.run import phases
from shared_spec.run.pace import Pace, guessed_flops
from shared_spec.run.phases import Measured, Phase
from shared_spec.run.request import Request
from shared_spec.workload.spec import Profile, Spec

TRAINING_SHARE = 0.5
"""What a training step is thought to reach of the rate of matrix products alone."""
LIMIT_MARGIN_SECONDS = 300.0
"""What a phase may take beside the multiple of its estimate."""
EARLY_END_SHARE = 0.5
"""Part of the limit after which a phase ends with what it has."""
TOO_EARLY = 0.05
"""Part of a phase below which its speed so far tells nothing of its end."""


@dataclass(frozen=True)
class Planned:
    """One phase process to be: which phase, and which repeat of it."""

    phase: Phase
    repeat: int

    @property
    def title(self) -> str:
        return self.phase.name if self.phase.repeats is phases.once else f"{self.phase.name} {self.repeat + 1}"

    @property
    def stem(self) -> str:
        """Name of its files: the same however many repeats there are."""
        return f"{phases.PHASES.index(self.phase):02d}-{self.phase.name}-{self.repeat}"

    def seed(self, spec: Spec) -> int:
        """What its data order and augmentation are drawn from: the same for a repeat on all platforms."""
        return spec.training.seeds[self.repeat]


def in_order(profile: Profile, chosen: Iterable[Phase]) -> list[Planned]:
    """The phase processes in order: neighbours that are repeated equally often take turns."""
    return [
        Planned(phase, repeat)
        for count, group in groupby(chosen, key=lambda phase: phase.repeats(profile))
        for neighbours in [list(group)]
        for repeat in range(count)
        for phase in neighbours
    ]


@dataclass(frozen=True)
class Left:
    """Seconds left of the phase under way and of the whole run, as far as one can tell."""

    phase: float
    run: float


class Plan:
    """What a run still has to do, and how long that takes.

    Attributes:
        processes: all phase processes, those that have ended among them.
    """

    def __init__(self, request: Request, clock: Clock = monotonic) -> None:
        self._request, self._clock = request, clock
        self.processes = in_order(request.setting.profile, request.planned_phases)
        self._succeeded: dict[Planned, bool] = {}
        self._seconds: dict[Planned, float] = {}
        self._begun = 0.0
        self._estimate_at(guessed_flops(request.setting.device, request.setting.precision))

    def _estimate_at(self, flops: float) -> None:
        setting = self._request.setting
        compile_seconds = self._request.platform.compile_seconds.get(setting.device, 0.0)
        pace = Pace(setting.spec, setting.profile, flops, compile_seconds)
        self._seconds = {planned: planned.phase.estimate(pace) for planned in self.processes}

    def estimate(self, planned: Planned) -> float:
        """Seconds that a phase process takes."""
        return self._seconds[planned]

    def limit(self, planned: Planned) -> float | None:
        """Seconds after which a phase process is stopped; None: it may take as long as it likes.

        It is a multiple of the estimate, which is that of a repeat seen before where there was one, and some minutes:
        a guess can be far off, and a process takes a while to start on any machine.
        """
        factor = self._request.time_limit
        return factor * self._seconds[planned] + LIMIT_MARGIN_SECONDS if factor > 0 else None

    @property
    def waiting(self) -> list[Planned]:
        """The phase processes that have not ended."""
        return [planned for planned in self.processes if planned not in self._succeeded]

    @property
    def kept(self) -> list[Planned]:
        """The phase processes that have ended well."""
        return [planned for planned in self.processes if self._succeeded.get(planned)]

    @property
    def remaining(self) -> float:
        """Seconds that all of what has not ended takes."""
        return sum(self._seconds[planned] for planned in self.waiting)

    def keep(self, planned: Planned) -> None:
        """Note that an earlier start of this run has done it."""
        self._succeeded[planned] = True

    def begin(self, planned: Planned) -> None:
        """Note that the phase starts now."""
        self._begun = self._clock()

    def left(self, planned: Planned, done: float) -> Left:
        """What is left when `done` (0 to 1) of the phase under way is."""
        spent, estimate = self._clock() - self._begun, self._seconds[planned]
        here = spent / done * (1 - done) if done > TOO_EARLY else max(0.0, estimate - spent)
        return Left(here, here + self.remaining - estimate)

    def end(self, planned: Planned, measured: Measured | None) -> float:
        """Note that the phase under way has ended, and learn from what it has measured; None: it has failed.

        Returns:
            Seconds that it took.
        """
        seconds, self._succeeded[planned] = self._clock() - self._begun, measured is not None
        if measured is not None:
            if planned.phase.flops:
                self._estimate_at(TRAINING_SHARE * planned.phase.flops(measured))
            self._seconds |= {other: seconds for other in self.processes if other.phase is planned.phase}
        return seconds

    def add_repeats(self, figure: Callable[[Planned], float]) -> list[Planned]:
        """Plan one more repeat of each phase whose figure is not yet known closely enough; return what was added.

        Args:
            figure: of a phase process that has ended well.
        """
        more = [phase for phase in self._request.planned_phases if phase.figure and self._is_unsure(phase, figure)]
        return [self.add(phase) for phase in more]

    def add(self, phase: Phase) -> Planned:
        """Plan one more repeat of a phase, behind all windows and before what takes longer."""
        done = self._of(phase)
        added = Planned(phase, len(done))
        self._seconds[added] = self._seconds[done[0]]
        last = max(i for i, planned in enumerate(self.processes) if not planned.phase.runs_to_its_end)
        self.processes.insert(last + 1, added)
        return added

    def wide_intervals(self, figure: Callable[[Planned], float]) -> dict[str, float]:
        """Width of the 95 % interval of the mean of a phase's repeats, where they have ended and it is too wide.

        Args:
            figure: of a phase process that has ended well.
        """
        widths, waiting = {}, {planned.phase for planned in self.waiting}
        for phase in self._request.planned_phases:
            well = [planned for planned in self.kept if planned.phase is phase]
            if phase.figure and phase not in waiting and len(well) > 1:
                widths[phase.name] = interval_width([figure(planned) for planned in well])
        tolerance = self._request.setting.spec.measuring.interval_tolerance
        return {name: width for name, width in widths.items() if width > tolerance}

    def _of(self, phase: Phase) -> list[Planned]:
        return [planned for planned in self.processes if planned.phase is phase]

    def _is_unsure(self, phase: Phase, figure: Callable[[Planned], float]) -> bool:
        """Whether there may be one more repeat, and the interval of those that there are is too wide."""
        setting, done = self._request.setting, self._of(phase)
        most = setting.profile.max_repeats
        if not 1 < most > len(done) or not all(self._succeeded.get(planned) for planned in done):
            return False
        figures = [figure(planned) for planned in done]
        return len(figures) < 2 or interval_width(figures) > setting.spec.measuring.interval_tolerance
