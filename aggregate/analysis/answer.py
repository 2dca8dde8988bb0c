"""The benchmark's questions, answered for runs that may stand in one table: who is best, by how much, who is not known.

The sentences are made of this by aggregate.render.answer, the charts and tables ask the same.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from aggregate.analysis import ratios
from aggregate.analysis.energy import basis
from aggregate.analysis.memory import BOOKED
from aggregate.analysis.merging import Run, merged
from aggregate.analysis.metrics import WINDOW
from aggregate.analysis.ratios import FASTER_IS, Ratio
from shared_spec.results.measurements import Convergence

Key = Literal["full", "training", "latency", "inference", "target", "energy", "cost", "memory", "max_batch"]
MAX_RIVALS = 2
"""Others that an answer names; the table has all."""


@dataclass(frozen=True)
class Question:
    """One of the benchmark's questions.

    Attributes:
        key: its name in code and in the JSON.
        metrics: that answer it; the first that every run has which has any of them.
        more_is_better: whether the largest value wins.
    """

    key: Key
    metrics: tuple[str, ...]
    more_is_better: bool = False


QUESTIONS = (
    Question("full", ("full_throughput",), more_is_better=True),
    Question("training", ("training_throughput",), more_is_better=True),
    Question("latency", ("latency_median",)),
    Question("inference", ("inference_reference",), more_is_better=True),
    Question("target", ("time_to_target",)),
    Question("energy", ("energy_to_target",)),
    Question("cost", ("cost_to_target", "owning_to_target")),
    Question("memory", ("machine_memory",)),
    Question("max_batch", ("max_batch",), more_is_better=True),
)
"""In the order of the answer: the whole of a training first, then the window that every run has."""


@dataclass(frozen=True)
class Standing:
    """Where one run stands.

    Attributes:
        run: which.
        metric: key of the metric that its value is of.
        value: the median of the repeats.
        low: lowest repeat.
        high: highest repeat.
        repeats: processes behind the value.
        unit: of value, low and high.
        factor: how many times as good the best is, at least about 1; of the best itself against the runner-up; None where
            it stands alone.
        notes: what a reader must know beside the value.
    """

    run: Run
    metric: str
    value: float
    low: float
    high: float
    repeats: int
    unit: str
    factor: Ratio | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """Runs whose figures compare, best first.

    Attributes:
        kind: what the figures cover, in words, where others of the section cover something else; else empty.
        standings: best first, at least one.
    """

    kind: str
    standings: tuple[Standing, ...]

    @property
    def best(self) -> Standing:
        """The winner."""
        return self.standings[0]

    @cached_property
    def rivals(self) -> tuple[Standing, ...]:
        """The best of each other platform, else of each other device, best first: whom an answer names."""
        for what in (_platform, _machine):
            found = {what(standing.run): standing for standing in reversed(self.standings)}
            others = [s for s in self.standings if found[what(s.run)] is s and what(s.run) != what(self.best.run)]
            if others:
                return tuple(others[:MAX_RIVALS])
        return self.standings[1 : 1 + MAX_RIVALS]


@dataclass(frozen=True)
class Answer:
    """What is known of one question.

    Attributes:
        question: which.
        rankings: one of each kind of figure, the one with most runs first; none where nobody knows.
        unknown: runs without a figure, and why.
    """

    question: Question
    rankings: tuple[Ranking, ...]
    unknown: tuple[tuple[Run, str], ...]

    def standing(self, run: Run) -> Standing | None:
        """Where a run stands, of its first kind of figure; None where that is not known."""
        return next((s for ranking in self.rankings for s in ranking.standings if s.run is run), None)


def answers(runs: Sequence[Run]) -> dict[Key, Answer]:
    """All questions, answered for the runs of a section."""
    return {question.key: _answer(question, runs) for question in QUESTIONS}


def fastest(runs: Sequence[Run]) -> Run:
    """The run that trains fastest; the first where none was timed."""
    of_window = next(question for question in QUESTIONS if question.key == "training")
    ranking = _answer(of_window, runs, compared=False).rankings
    return ranking[0].best.run if ranking else runs[0]


def _answer(question: Question, runs: Sequence[Run], *, compared: bool = True) -> Answer:
    by_kind: dict[tuple[str, str], list[Standing]] = {}
    unknown = []
    for run in runs:
        found = list(_FINDERS.get(question.key, _of_metrics)(question, run, runs))
        for kind, standing in found:
            by_kind.setdefault((kind, standing.unit), []).append(standing)
        if not found:
            unknown.append((run, _why(run, question.metrics[-1])))
    several = len({kind for kind, _ in by_kind}) > 1
    rankings = [
        Ranking(kind if several or question.key in KINDS_MATTER else "", _ranked(question, found, compared=compared))
        for (kind, _), found in by_kind.items()
    ]
    rankings.sort(key=lambda ranking: -len(ranking.standings))
    return Answer(question, tuple(rankings), tuple(unknown))


COMPARED_BY = {"time_to_target": "target_crossing"}
"""Metrics that the evaluations' grain makes coarse, by the one that their factor is taken from."""
KINDS_MATTER = ("memory", "energy", "cost")
"""Questions whose figures are told with what they cover, always."""
Found = Iterable[tuple[str, Standing]]


def _of_metrics(question: Question, run: Run, runs: Sequence[Run]) -> Found:
    """The first metric that all runs have which have any."""
    having = [one for one in runs if any(_known(one, metric) for metric in question.metrics)]
    metric = next((m for m in question.metrics if all(_known(one, m) for one in having)), question.metrics[-1])
    return _standing("", run, metric)


def _energy(question: Question, run: Run, runs: Sequence[Run]) -> Found:
    """By meter: what covers a GPU's board does not compare with what covers a processor."""
    meters = [basis(m.energy) for m in run.measured(Convergence) if m.energy.joules is not None]
    for which in meters[:1]:
        yield from _standing(which, run, "energy_to_target")


def _cost(question: Question, run: Run, runs: Sequence[Run]) -> Found:
    """Rented and owned apart."""
    yield from _standing("rented", run, "cost_to_target")
    yield from _standing("owned, electricity not counted", run, "owning_to_target")


def _memory(question: Question, run: Run, runs: Sequence[Run]) -> Found:
    """What the training took from the machine, by who booked it."""
    for figure in [figure for figure in run.repeats("machine_memory") if not figure.reason][:1]:
        alone = WINDOW_ALONE * (figure.basis == WINDOW)
        yield from _standing(f"{BOOKED_BY.get(figure.notes[0], figure.notes[0])}{alone}", run, "machine_memory")


WINDOW_ALONE = ", window alone"
"""Said of the memory of a run that trained only for a window: a full training may take more."""
BOOKED_BY = {
    BOOKED["nvml_process_peak"]: "GPU memory",
    BOOKED["nvml_process"]: "GPU memory",
    BOOKED["footprint_peak"]: "of the process, the GPU's share included",
    BOOKED["host_peak"]: "of the process",
}
"""Who booked the memory, in the words of the answer."""


_FINDERS: dict[str, Callable[[Question, Run, Sequence[Run]], Found]] = {
    "energy": _energy,
    "cost": _cost,
    "memory": _memory,
}


def _known(run: Run, metric: str) -> bool:
    return any(not figure.reason for figure in run.repeats(metric))


def _standing(kind: str, run: Run, metric: str) -> Iterator[tuple[str, Standing]]:
    """Where a run stands by a metric, if it has a value."""
    if not (repeats := run.repeats(metric)):
        return
    one = merged(repeats)
    if math.isfinite(one["value"]):
        figures = (one["value"], one["low"], one["high"], one["repeats"], one["unit"])
        yield kind, Standing(run, metric, *figures, notes=one["notes"])


def _why(run: Run, metric: str) -> str:
    repeats = run.repeats(metric)
    return str(merged(repeats)["reason"]) if repeats else "not measured"


def _ranked(question: Question, found: Sequence[Standing], *, compared: bool) -> tuple[Standing, ...]:
    """Best first, each with its factor."""
    sign = -1 if question.more_is_better else 1
    ordered = sorted(found, key=lambda standing: (sign * standing.value, standing.run.letter))
    if not compared or len(ordered) < 2:
        return tuple(ordered)
    best, *others = ordered
    table = {(other.run.letter, other.metric): _factor(best, other, sign) for other in others}
    factors = list(ratios.corrected(table).values())
    pairs = zip(ordered, (factors[0], *factors), strict=True)
    return tuple(dataclasses.replace(standing, factor=factor) for standing, factor in pairs)


def _factor(best: Standing, other: Standing, sign: int) -> Ratio:
    """How many times as good the best is as another."""
    metric = COMPARED_BY.get(best.metric, best.metric)
    if metric in FASTER_IS and best.metric == other.metric:
        return ratios.ratio(best.run, other.run, metric)
    times = (best.value / other.value) ** -sign if best.value and other.value else math.nan
    return Ratio(other.run.letter, best.metric, times, reason="no interval is known")


def _platform(run: Run) -> tuple[str, ...]:
    return run.content.platform, run.content.engine


def _machine(run: Run) -> tuple[str, ...]:
    return run.hardware.short.casefold(), run.ranks.words
