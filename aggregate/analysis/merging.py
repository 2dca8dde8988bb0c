"""Results of the same thing, measured once or several times, as one run; and their repeats as one figure."""

import dataclasses
import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from aggregate.analysis import notes as wording
from aggregate.analysis.derive import derive
from aggregate.analysis.hardware import Hardware, Ranks, hardware_of, ranks_of
from aggregate.analysis.metrics import FULL_TRAINING, NOT_RUN, Figure
from aggregate.analysis.phases.conformance import STATUSES, conformance_of
from aggregate.analysis.registry import METRIC
from aggregate.analysis.result import Result
from aggregate.analysis.standard import is_standard, standard
from shared_spec.results import format
from shared_spec.results.format import AnyOutcome
from shared_spec.results.measurements import Convergence, Measurements
from shared_spec.results.prices import Prices

M = TypeVar("M", bound=Measurements)

MACHINE_FACTS = (
    "machine_id",
    "cpu_name",
    "cpu_microcode",
    "cpu_physical_cores",
    "memory_bytes",
    "gpu_driver",
    "distribution",
)
"""Facts of the environment that two machines of a kind can differ in."""
THROTTLE = "gpu_throttle_reasons"
"""Name of that list in the state of a machine."""


@dataclass(frozen=True)
class Run:
    """One thing measured, under the letter that tables and plots know it by.

    Attributes:
        letter: A, B ... Z, AA ...
        results: the times it was measured, the first one first; alike in all that `_sameness` names.
        prices: what its cost is reckoned with.
    """

    letter: str
    results: tuple[Result, ...]
    prices: Prices

    @property
    def result(self) -> Result:
        """The first result: speaks for all in what they have in common."""
        return self.results[0]

    @property
    def content(self) -> format.Result:
        """Of the first result."""
        return self.result.content

    @property
    def profiles(self) -> list[str]:
        """Names of the profiles that the results were measured with, each once."""
        return list(dict.fromkeys(result.content.profile.name for result in self.results))

    def outcomes(self, phase: str) -> list[AnyOutcome]:
        """The outcomes of a phase in all the results, failed ones included."""
        return [outcome for result in self.results for outcome in result.outcomes(phase)]

    def measured(self, kind: type[M]) -> list[M]:
        """The measurements of a phase in all the results."""
        return [measured for result in self.results for measured in result.measured(kind)]

    @cached_property
    def figures_of_results(self) -> list[dict[tuple[str, int | None], list[Figure]]]:
        """The repeats of every figure in each result, by metric and batch size."""
        each = []
        for result in self.results:
            repeats: defaultdict[tuple[str, int | None], list[Figure]] = defaultdict(list)
            for figure in derive(result, self.prices):
                repeats[figure.metric, figure.batch_size].append(figure)
            each.append(dict(repeats))
        return of_one_basis(each)

    @cached_property
    def figures(self) -> dict[tuple[str, int | None], list[Figure]]:
        """The repeats of every figure, by metric and batch size; of absent phases only where all results lack them."""
        repeats: defaultdict[tuple[str, int | None], list[Figure]] = defaultdict(list)
        for of_result in self.figures_of_results:
            for key, figures in of_result.items():
                repeats[key] += figures
        return dict(repeats)

    def repeats(self, metric: str) -> list[Figure]:
        """The repeats of a figure at the workload's batch; none where no phase has it."""
        return self.figures.get((metric, None), [])

    @cached_property
    def hardware(self) -> Hardware:
        """What it ran on."""
        return hardware_of(self.content)

    @cached_property
    def ranks(self) -> Ranks:
        """How many processes trained together."""
        return ranks_of(self.content)

    @cached_property
    def conformance(self) -> tuple[str, str]:
        """Status (passed, failed, not checked) and why it is not passed; one check that passed speaks for all."""
        each = [conformance_of(result) for result in self.results]
        return min(each, key=lambda status: STATUSES.index(status[0]))

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know of the whole run: synthetic data, missing proof, warnings."""
        each = [_notes(result) for result in self.results]
        if len(each) == 1:
            return [*self._evaluated, *each[0]]
        counts = Counter(note for notes in each for note in dict.fromkeys(notes))
        said = [
            note if count == len(each) else f"{count} of {len(each)} result files: {note}"
            for note, count in counts.items()
        ]
        return [*self._merges, *self._evaluated, *wording.alike(said)]

    @property
    def _evaluated(self) -> list[str]:
        """Said of a full training of the standard workload that was evaluated more or less often than it is today."""
        trained = next((result.spec for result in self.results if result.measured(Convergence)), standard())
        often, usual = trained.training.evaluations_per_epoch, standard().training.evaluations_per_epoch
        if not is_standard(trained) or often == usual:
            return []
        return [f"evaluated {_times(often)} an epoch, not {_times(usual)}: its time to target does not compare"]

    @property
    def _merges(self) -> list[str]:
        """What is not the same in the results that are one run."""
        software = [result.content.software for result in self.results]
        commits = list(dict.fromkeys((one.git_commit or "unknown")[:7] for one in software))
        machines = {_machine(result) for result in self.results}
        merges = [f"{len(commits)} commits together: {', '.join(commits)}"] if len(commits) > 1 else []
        if len(machines) > 1:
            merges.append(f"{len(machines)} machines of the same kind together")
        return merges

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The columns of the data frame that say what ran."""
        c, backend, hardware = self.content, self.content.backend, self.hardware
        commits = [result.content.software.git_commit for result in self.results]
        clean = [result.content.software.git_clean for result in self.results]
        return {
            "run": self.letter,
            "runs": len(self.results),
            "file": _joined(result.file for result in self.results),
            "file_sha256": _joined(result.sha256 for result in self.results),
            "run_id": _joined(result.content.run_id for result in self.results),
            "created": c.created,
            "platform": c.platform,
            "engine": c.engine,
            "framework": f"{backend.framework} {backend.framework_version}" if backend else "",
            "device_kind": hardware.kind,
            "device_name": hardware.name,
            "cores": hardware.cores,
            "world_size": self.ranks.size,
            "scaling": self.ranks.scaling,
            "precision": c.precision,
            "effective_precision": effective_precision(self.result),
            "profile": _joined(self.profiles),
            "data": c.data.source,
            "conformance": self.conformance[0],
            "spec_name": c.spec.name,
            "spec_fingerprint": c.spec.fingerprint,
            "training_fingerprint": self.result.spec.training_fingerprint,
            "spec_standard": is_standard(self.result.spec),
            "git_commit": _joined(commit for commit in commits if commit) or None,
            "git_clean": None if None in clean else all(clean),
        }


def letters() -> Iterator[str]:
    """A, B ... Z, AA, AB ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=length))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def same_thing(result: Result) -> tuple[Any, ...]:
    """The same whatever of a full training was evaluated.

    The standard workload comes first, then what belongs beside one another. A result that does not say what it ran
    on is like no other.
    """
    c, backend, hardware = result.content, result.content.backend, hardware_of(result.content)
    other = not is_standard(result.spec)
    failed = conformance_of(result)[0] == "failed"
    section = (other, c.spec.name, result.spec.training_fingerprint, c.precision != "fp32", failed)
    ran = (c.platform, hardware.short.casefold(), hardware.kind, c.engine, c.data.source)
    ranks = ranks_of(c)
    framework = (backend.framework, backend.framework_version) if backend else ("", "")
    alone = "" if hardware.known else c.run_id
    together = (ranks.size, ranks.scaling, ranks.how)
    return (*section, *ran, *together, *framework, effective_precision(result), alone)


def _sameness(results: Sequence[Result]) -> Callable[[Result], tuple[Any, ...]]:
    """What two of the results must share to be the same thing measured again, in the order of the tables.

    How often a training was evaluated matters to full trainings alone: a result without one joins those that have.
    """
    trained: dict[tuple[Any, ...], int] = {}
    for result in results:
        if result.measured(Convergence):
            thing, often = same_thing(result), result.spec.training.evaluations_per_epoch
            trained[thing] = max(often, trained.get(thing, often))

    def sameness(result: Result) -> tuple[Any, ...]:
        own, thing = result.spec.training.evaluations_per_epoch, same_thing(result)
        return (*thing, -(own if result.measured(Convergence) else trained.get(thing, own)))

    return sameness


def runs(results: Sequence[Result], prices: Prices) -> list[Run]:
    """The results in the order of the tables, those of the same thing together, each group with its letter."""
    sameness = _sameness(results)
    ordered = sorted(results, key=lambda result: (*sameness(result), result.content.created, result.file))
    groups = [tuple(group) for _, group in itertools.groupby(ordered, key=sameness)]
    return [Run(letter, group, prices) for letter, group in zip(letters(), groups, strict=False)]


Repeats = dict[tuple[str, int | None], list[Figure]]


def of_one_basis(of_results: list[Repeats]) -> list[Repeats]:
    """Of every figure what one thing gave: a full training before a window, then what compares, then what most gave.

    What is left out is said beside what stays. Figures without a value stay, for they are of nothing.
    """
    kinds: defaultdict[tuple[str, int | None], Counter[tuple[bool, bool, str]]] = defaultdict(Counter)
    for repeats in of_results:
        for key, figures in repeats.items():
            kinds[key].update(_kind(figure) for figure in figures if not figure.reason)
    chosen = {key: max(counts, key=lambda kind: (*kind[:2], counts[kind])) for key, counts in kinds.items() if counts}
    several = {key for key, counts in kinds.items() if len(counts) > 1}
    changed = []
    for repeats in of_results:
        kept = {key: [f for f in figures if f.reason or _kind(f) == chosen[key]] for key, figures in repeats.items()}
        for key in several & kept.keys():
            others = sum(count for kind, count in kinds[key].items() if kind != chosen[key])
            note = f"{others} more of something else left out"
            kept[key] = [f if f.reason else dataclasses.replace(f, notes=(*f.notes, note)) for f in kept[key]]
        changed.append(kept)
    return changed


def _kind(figure: Figure) -> tuple[bool, bool, str]:
    """Whether it is of a full training, whether it compares, and what it is of."""
    return figure.basis.startswith(FULL_TRAINING), not figure.uncompared, figure.basis


def of_seeds(repeats: Sequence[Figure]) -> list[Figure]:
    """One figure a seed: their median where trainings share one, which are repeats of it and no further seeds.

    Of an even number of them the worse of the two in the middle stands for both where one never came.
    """
    groups: defaultdict[object, list[Figure]] = defaultdict(list)
    for i, figure in enumerate(repeats):
        groups[("alone", i) if figure.seed is None else figure.seed].append(figure)
    return [group[0] if len(group) == 1 else _of_seed(group) for group in groups.values()]


def _of_seed(group: list[Figure]) -> Figure:
    counted = [figure for figure in group if figure.never or not figure.reason]
    if not counted:
        return group[0]
    value = statistics.median(figure.ranked for figure in counted)
    if math.isinf(value):
        return next(figure for figure in counted if figure.never)
    first = next(figure for figure in counted if not figure.reason)
    if METRIC[first.metric].merge == "sum":  # reached or not, by more than half of them
        return dataclasses.replace(first, value=float(value > 0.5), n=1, notes=_notes_of_seed(group))
    return dataclasses.replace(first, value=value, n=sum(figure.n for figure in counted), notes=_notes_of_seed(group))


def _notes_of_seed(group: list[Figure]) -> tuple[str, ...]:
    again = f"seed {group[0].seed} was trained {len(group)} times: their median counts as one seed's"
    return tuple(dict.fromkeys([note for figure in group for note in figure.notes] + [again]))


def merged(repeats: Sequence[Figure]) -> dict[str, Any]:
    """The repeats of one figure as one: median or sum, extremes, and all that has to be said of them.

    A training that misses its target is never left out: its time counts as longer than any other. Trainings with the
    same seed count once in the middle; the extremes are of all.
    """
    repeats = [f for f in repeats if f.n or not f.reason.endswith(NOT_RUN)] or repeats
    metric = METRIC[repeats[0].metric]
    all_values = [f.ranked for f in repeats if f.never or not f.reason] or [math.nan]
    repeats = of_seeds(repeats)
    counted = [f for f in repeats if f.never or not f.reason]
    values = [f.ranked for f in counted] or [math.nan]
    value = math.fsum(values) if metric.merge == "sum" else statistics.median(values)
    finite = [v for v in values if math.isfinite(v)]
    extremes = [v for v in all_values if math.isfinite(v)]
    notes = wording.of_repeats([figure.notes for figure in repeats if not figure.reason or figure.notes])
    without = [figure.reason for figure in repeats if figure.reason]
    reason = "; ".join(dict.fromkeys(without))
    if 0 < len(without) < len(repeats):
        reason = f"{len(without)} of {len(repeats)} repeats gave no value: {reason}"
    if math.isfinite(value) and reason:
        notes.append(reason)
    return {
        "unit": next((f.unit for f in repeats if f.unit), metric.unit),
        "basis": next((f.basis for f in repeats if f.basis), ""),
        "value": value if math.isfinite(value) else math.nan,
        "low": min(extremes, default=math.nan) if math.isfinite(value) else math.nan,
        "high": max(extremes) if math.isfinite(value) and len(extremes) == len(all_values) else math.nan,
        "repeats": len(finite),
        "n": sum(figure.n for figure in repeats if not figure.reason),
        "notes": tuple(notes),
        "reason": "" if math.isfinite(value) else reason,
    }


def effective_precision(result: Result) -> str:
    """As the framework says; empty where no phase came so far."""
    backend = result.content.backend
    return backend.precision.effective if backend else ""


def _notes(result: Result) -> list[str]:
    status, why = conformance_of(result)
    notes = list(result.content.warnings)
    if result.content.data.source == "synthetic" and not any("synthetic" in text for text in notes):
        notes.insert(0, "measured on the synthetic stand-in, not on CIFAR-100")
    if status == "not checked":
        notes.insert(0, f"not checked: {why}")
    effective = effective_precision(result)
    if effective not in ("", result.content.precision):
        notes.append(f"effective precision: {effective}")
    if doubts := result.doubts:
        notes.append(f"hard to believe: {doubts[0]}" + (f"; {len(doubts) - 1} more: see check" if doubts[1:] else ""))
    return list(dict.fromkeys([*notes, *_throttling(result.content)]))


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _machine(result: Result) -> tuple[Any, ...]:
    """What tells two machines of a kind apart, as far as a result does."""
    return tuple(result.content.environment.get(fact) for fact in MACHINE_FACTS)


def _throttling(result: format.Result) -> list[str]:
    """What held the GPU's clock down at the start and at the end; being idle does not count."""
    states = (result.state_before.get(THROTTLE), result.state_after.get(THROTTLE))
    seen = dict.fromkeys(str(reason) for state in states if isinstance(state, tuple) for reason in state)
    reasons = [reason for reason in seen if "idle" not in reason]
    return [f"the GPU's clock was held down: {', '.join(reasons)}"] if reasons else []
