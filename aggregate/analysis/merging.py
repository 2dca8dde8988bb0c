"""Results of the same thing, measured once or several times, as one run; and their repeats as one figure."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from aggregate.analysis import notes as wording
from aggregate.analysis.derive import derive
from aggregate.analysis.hardware import Hardware, Ranks, hardware_of, ranks_of
from aggregate.analysis.metrics import NOT_RUN, Figure
from aggregate.analysis.phases.conformance import STATUSES, conformance_of
from aggregate.analysis.registry import METRIC
from aggregate.analysis.result import Result
from aggregate.analysis.standard import is_standard
from shared_spec.results import format
from shared_spec.results.format import AnyOutcome
from shared_spec.results.measurements import Measurements
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
        results: the times it was measured, the first one first; alike in all that `sameness` names.
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
        return each

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
            return each[0]
        counts = Counter(note for notes in each for note in dict.fromkeys(notes))
        said = [
            note if count == len(each) else f"{count} of {len(each)} result files: {note}"
            for note, count in counts.items()
        ]
        return [*self._merges, *wording.alike(said)]

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
            "spec_standard": is_standard(c.spec.fingerprint),
            "git_commit": _joined(commit for commit in commits if commit) or None,
            "git_clean": None if None in clean else all(clean),
        }


def letters() -> Iterator[str]:
    """A, B ... Z, AA, AB ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=length))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def sameness(result: Result) -> tuple[Any, ...]:
    """What two results must share to be the same thing measured again, in the order of the tables.

    The standard workload comes first, then what belongs beside one another. A result that does not say what it ran
    on is like no other.
    """
    c, backend, hardware = result.content, result.content.backend, hardware_of(result.content)
    other = not is_standard(c.spec.fingerprint)
    failed = conformance_of(result)[0] == "failed"
    section = (other, c.spec.name, c.spec.fingerprint, c.precision != "fp32", failed)
    ran = (c.platform, hardware.short.casefold(), hardware.kind, c.engine, c.data.source)
    ranks = ranks_of(c)
    framework = (backend.framework, backend.framework_version) if backend else ("", "")
    alone = "" if hardware.known else c.run_id
    together = (ranks.size, ranks.scaling, ranks.how)
    return (*section, *ran, *together, *framework, effective_precision(result), alone)


def runs(results: Sequence[Result], prices: Prices) -> list[Run]:
    """The results in the order of the tables, those of the same thing together, each group with its letter."""
    ordered = sorted(results, key=lambda result: (*sameness(result), result.content.created, result.file))
    groups = [tuple(group) for _, group in itertools.groupby(ordered, key=sameness)]
    return [Run(letter, group, prices) for letter, group in zip(letters(), groups, strict=False)]


def merged(repeats: Sequence[Figure]) -> dict[str, Any]:
    """The repeats of one figure as one: median or sum, extremes, and all that has to be said of them.

    A training that misses its target is never left out: its time counts as longer than any other.
    """
    repeats = [f for f in repeats if f.n or not f.reason.endswith(NOT_RUN)] or repeats
    metric = METRIC[repeats[0].metric]
    counted = [f for f in repeats if f.never or not f.reason]
    values = [math.inf if f.never else f.value for f in counted] or [math.nan]
    value = math.fsum(values) if metric.merge == "sum" else statistics.median(values)
    finite = [v for v in values if math.isfinite(v)]
    notes = wording.of_repeats([figure.notes for figure in repeats if not figure.reason or figure.notes])
    without = [figure.reason for figure in repeats if figure.reason]
    reason = "; ".join(dict.fromkeys(without))
    if 0 < len(without) < len(repeats):
        reason = f"{len(without)} of {len(repeats)} repeats gave no value: {reason}"
    if math.isfinite(value) and reason:
        notes.append(reason)
    return {
        "unit": next((f.unit for f in repeats if f.unit), metric.unit),
        "value": value if math.isfinite(value) else math.nan,
        "low": min(finite, default=math.nan) if math.isfinite(value) else math.nan,
        "high": max(finite) if math.isfinite(value) and len(finite) == len(values) else math.nan,
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
    return list(dict.fromkeys([*notes, *_throttling(result.content)]))


def _machine(result: Result) -> tuple[Any, ...]:
    """What tells two machines of a kind apart, as far as a result does."""
    return tuple(result.content.environment.get(fact) for fact in MACHINE_FACTS)


def _throttling(result: format.Result) -> list[str]:
    """What held the GPU's clock down at the start and at the end; being idle does not count."""
    states = (result.state_before.get(THROTTLE), result.state_after.get(THROTTLE))
    seen = dict.fromkeys(str(reason) for state in states if isinstance(state, tuple) for reason in state)
    reasons = [reason for reason in seen if "idle" not in reason]
    return [f"the GPU's clock was held down: {', '.join(reasons)}"] if reasons else []
