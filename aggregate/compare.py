"""Which results may stand beside which, and the data frame of all their figures."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd

from aggregate import metrics
from aggregate.hardware import Hardware, Ranks, hardware_of, ranks_of
from aggregate.metrics import Figure
from aggregate.reading import Result
from shared_spec.results.prices import Prices
from shared_spec.workload.spec import Spec, load_spec

THROTTLE = "gpu_throttle_reasons"
"""Name of that list in the state of a machine."""

COLUMNS = {
    "run": "letter in tables and plots of what was measured, once or several times",
    "runs": "result files behind it",
    "file": "their names",
    "file_sha256": "SHA-256 of their bytes",
    "run_id": "identities of the runs",
    "created": "UTC time of the start of the first",
    "platform": "mlx, tf-cuda or torch-ipex",
    "engine": "engine of the platform that ran",
    "framework": "framework and version",
    "device_kind": "cpu, gpu ...",
    "device_name": "as the framework names it",
    "cores": "physical cores, where the device is a CPU",
    "world_size": "processes that trained together, one a device; 1 where nothing was shared",
    "scaling": "strong: the workload's batch shared; weak: that batch for each process; empty for one process",
    "precision": "fp32 or bf16, as asked for; tables never set one against the other",
    "effective_precision": "as read back from the framework",
    "profile": "how much was measured: quick or full (several runs can differ in it)",
    "data": "cifar-100 or synthetic",
    "conformance": "passed, failed or not checked",
    "spec_name": "name of the workload",
    "spec_fingerprint": "SHA-256 of the workload; figures of different ones do not compare",
    "spec_standard": "whether it is the workload of this clone's spec.json",
    "git_commit": "commits that measured; null where unknown",
    "git_clean": "whether all those checkouts were free of changes; null where unknown",
    "phase": "phase the figure comes from",
    "metric": "key of aggregate.metrics.METRICS",
    "unit": "unit of value, low and high",
    "batch_size": "batch that the figure holds for, where that is not the workload's",
    "value": "median over the repeats of all files, or their sum where things are counted; empty where not measured",
    "low": "lowest repeat",
    "high": "highest repeat",
    "repeats": "repeats that gave a value",
    "n": "steps, samples or checks behind the value, all repeats together",
    "notes": "what to know beside the number",
    "reason": "why there is no value",
    "baseline": "letter of the run that this one is compared with",
    "ratio": "how many times as fast as that (above 1 is faster); geometric means of the repeats",
    "ratio_low": "lower end of its 95 % interval",
    "ratio_high": "upper end of its 95 % interval",
    "ratio_method": "how the interval was found",
    "verdict": "faster, slower or too close to call",
}
"""The columns of `summary`, in order."""


def _failure(check: dict[str, Any]) -> str:
    figure = "not finite" if check["figure"] is None else f"{check['figure']:.3g}"
    return f"{check['name']} ({figure}, bound {check['bound']:.3g})"


PROOF = ("parameters", "logits", "gradients", "trace")
"""What the names of checks begin with that prove model, gradients and updates."""
CONFORMANCE = ("failed", "passed", "not checked")
"""From what decides to what says nothing."""


def conformance_of(result: Result) -> tuple[str, str]:
    """Status of a result (one of CONFORMANCE) and why it is not passed."""
    outcomes = result.outcomes("conformance")
    if not outcomes:
        return "not checked", "the conformance phase was not run: nothing shows that this is the specified model"
    for outcome in outcomes:
        if outcome["status"] == "failed":
            return "failed", f"the conformance phase itself failed: {outcome['reason']}"
        failed = [check for check in outcome["measurements"]["checks"] if not check["passed"]]
        if failed:
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            return "failed", f"failed {', '.join(map(_failure, failed[:3]))}{more}"
    names = [check["name"] for outcome in outcomes for check in outcome["measurements"]["checks"]]
    if lacking := [kind for kind in PROOF if not any(name.startswith(kind) for name in names)]:
        return "not checked", f"the conformance phase has no check of {' and '.join(lacking)}"
    return "passed", ""


def effective_precision(result: Result) -> str:
    """As the framework says; empty where no phase came so far."""
    backend = result.backend
    return backend["precision"]["effective"] if backend else ""


def _notes(result: Result) -> list[str]:
    status, why = conformance_of(result)
    found = list(dict.fromkeys(result.content["warnings"]))
    if result.content["data"]["source"] == "synthetic" and not any("synthetic" in text for text in found):
        found.insert(0, "measured on the synthetic stand-in, not on CIFAR-100")
    effective = effective_precision(result)
    if effective not in ("", result.content["precision"]):
        found.append(f"effective precision: {effective}")
    found += _throttling(result.content)
    return ([f"not checked: {why}"] if status == "not checked" else []) + found


def _throttling(content: dict[str, Any]) -> list[str]:
    """What held the GPU's clock down at the start and at the end; being idle does not count."""
    seen = [reason for when in ("state_before", "state_after") for reason in content[when].get(THROTTLE) or ()]
    reasons = [reason for reason in dict.fromkeys(map(str, seen)) if "idle" not in reason]
    return [f"the GPU's clock was held down: {', '.join(reasons)}"] if reasons else []


@dataclass(frozen=True)
class Run:
    """One thing measured, under the letter that tables and plots know it by.

    Attributes:
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
    def content(self) -> dict[str, Any]:
        return self.result.content

    @property
    def profiles(self) -> list[str]:
        """Names of the profiles that the results were measured with, each once."""
        return list(dict.fromkeys(result.content["profile"]["name"] for result in self.results))

    def outcomes(self, phase: str) -> list[dict[str, Any]]:
        """The outcomes of a phase in all the results, failed ones included."""
        return [outcome for result in self.results for outcome in result.outcomes(phase)]

    def measured(self, phase: str) -> list[dict[str, Any]]:
        """The measurements of a phase in all the results."""
        return [outcome["measurements"] for outcome in self.outcomes(phase) if outcome["status"] == "ok"]

    @cached_property
    def figures(self) -> dict[tuple[str, int | None], list[Figure]]:
        """The repeats of every figure, by metric and batch size; of absent phases only where all results lack them."""
        found: defaultdict[tuple[str, int | None], list[Figure]] = defaultdict(list)
        for result in self.results:
            for figure in metrics.derive(result, self.prices):
                found[figure.metric, figure.batch_size].append(figure)
        return dict(found)

    @cached_property
    def hardware(self) -> Hardware:
        return hardware_of(self.result)

    @cached_property
    def ranks(self) -> Ranks:
        return ranks_of(self.result)

    @cached_property
    def conformance(self) -> tuple[str, str]:
        """Status (passed, failed, not checked) and why it is not passed; one check that passed speaks for all."""
        each = [conformance_of(result) for result in self.results]
        return min(each, key=lambda found: CONFORMANCE.index(found[0]))

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know of the whole run: synthetic data, missing proof, warnings."""
        each = [_notes(result) for result in self.results]
        found = list(dict.fromkeys(note for notes in each for note in notes))
        if len(each) == 1:
            return found
        counts = {note: sum(note in notes for notes in each) for note in found}
        return [
            note if counts[note] == len(each) else f"{counts[note]} of {len(each)} result files: {note}"
            for note in found
        ]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The columns of the data frame that say what ran."""
        c, backend, hardware = self.content, self.result.backend, self.hardware
        commits = [result.content["software"]["git_commit"] for result in self.results]
        clean = [result.content["software"]["git_clean"] for result in self.results]
        return {
            "run": self.letter,
            "runs": len(self.results),
            "file": _joined(result.file for result in self.results),
            "file_sha256": _joined(result.sha256 for result in self.results),
            "run_id": _joined(result.content["run_id"] for result in self.results),
            "created": c["created"],
            "platform": c["platform"],
            "engine": c["engine"],
            "framework": f"{backend['framework']} {backend['framework_version']}" if backend else "",
            "device_kind": hardware.kind,
            "device_name": hardware.name,
            "cores": hardware.cores,
            "world_size": self.ranks.size,
            "scaling": self.ranks.scaling,
            "precision": c["precision"],
            "effective_precision": effective_precision(self.result),
            "profile": _joined(self.profiles),
            "data": c["data"]["source"],
            "conformance": self.conformance[0],
            "spec_name": c["spec"]["name"],
            "spec_fingerprint": c["spec"]["fingerprint"],
            "spec_standard": c["spec"]["fingerprint"] == standard().fingerprint,
            "git_commit": _joined(commit for commit in commits if commit) or None,
            "git_clean": None if None in clean else all(clean),
        }


@cache
def standard() -> Spec:
    """The workload of this clone's spec.json. What a file says of itself ("standard": true) is not asked."""
    return load_spec()


def letters() -> Iterator[str]:
    """A, B ... Z, AA, AB ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=length))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _sameness(result: Result) -> tuple[Any, ...]:
    """What two results must share to be the same thing measured again, in the order of the tables.

    The standard workload comes first, then what belongs beside one another. A result that does not say what it ran
    on is like no other.
    """
    c, backend, hardware = result.content, result.backend, hardware_of(result)
    other = c["spec"]["fingerprint"] != standard().fingerprint
    failed = conformance_of(result)[0] == "failed"
    section = (other, c["spec"]["name"], c["spec"]["fingerprint"], c["precision"] != "fp32", failed)
    ran = (c["platform"], hardware.short.casefold(), hardware.kind, c["engine"], c["data"]["source"])
    ranks = ranks_of(result)
    framework = (backend["framework"], backend["framework_version"]) if backend else ("", "")
    alone = "" if hardware.known else c["run_id"]
    together = (ranks.size, ranks.scaling, ranks.how)
    return (*section, *ran, *together, *framework, effective_precision(result), alone)


def runs(results: Sequence[Result], prices: Prices) -> list[Run]:
    """The results in the order of the tables, those of the same thing together, each group with its letter."""
    ordered = sorted(results, key=lambda result: (*_sameness(result), result.content["created"], result.file))
    groups = [tuple(group) for _, group in itertools.groupby(ordered, key=_sameness)]
    return [Run(letter, group, prices) for letter, group in zip(letters(), groups, strict=False)]


@dataclass(frozen=True)
class Section:
    """Runs that one table may hold.

    Attributes:
        title: what was measured.
        reason: why these runs are apart from the standard ones; empty for those.
        comparable: False where a run did not prove to compute the specified model.
        slug: "" for the standard workload in fp32, else what its files are told apart by: "-0123456789ab-bf16".
    """

    title: str
    reason: str
    runs: tuple[Run, ...]
    comparable: bool
    slug: str

    @property
    def fingerprint(self) -> str:
        return self.runs[0].result.spec.fingerprint


def _leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{pointer}/{key}")
    else:
        yield pointer, value


def differences(spec: Spec) -> list[str]:
    """Where `spec` differs from the standard one, the profiles left out: "/data/train_images is 512, not 50000"."""
    ours, theirs = (dict(_leaves(s.to_dict())) for s in (standard(), spec))
    return [
        f"{pointer} is {theirs[pointer]!s:.40}, not {value!s:.40}"
        for pointer, value in ours.items()
        if not pointer.startswith("/profiles/") and theirs[pointer] != value
    ]


def _section_of(run: Run) -> tuple[str, str, bool]:
    return run.content["spec"]["fingerprint"], run.content["precision"], run.conformance[0] == "failed"


def sections(all_runs: Sequence[Run]) -> list[Section]:
    """Split runs by workload, standard first, and by precision, and set those that failed conformance apart."""
    return [
        _section(precision, failed, tuple(members))
        for (_, precision, failed), members in itertools.groupby(all_runs, key=_section_of)
    ]


def _section(precision: str, failed: bool, members: tuple[Run, ...]) -> Section:
    spec = members[0].result.spec
    title, slug, reasons = f"{spec.name} {spec.version}, the standard workload, {precision}", "", []
    if spec.fingerprint != standard().fingerprint:
        changed = differences(spec)
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        slug = f"-{spec.fingerprint[:12]}"
        title = f"{spec.name} {spec.version}, another workload (fingerprint {spec.fingerprint[:12]}), {precision}"
        reasons.append(f"Apart because it is not the standard workload: {'; '.join(changed[:6])}{more}.")
    if precision != "fp32":
        slug += f"-{precision}"
        reasons.append(f"{precision} and fp32 are different arithmetic: their figures stand in tables of their own.")
    if failed:
        title += ": conformance failed"
        why = "; ".join(f"{run.letter} {run.conformance[1]}" for run in members)
        reasons.insert(0, f"Apart because the computed model is not proved to be the specified one: {why}.")
    return Section(title, " ".join(reasons), members, not failed, slug)


def same_hardware(members: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Devices that ran more than one platform or engine, with their runs: what differs there is not the hardware."""
    by_device: defaultdict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in members:
        if run.hardware.known:
            by_device[run.hardware.kind, run.hardware.short.casefold(), run.ranks.size, run.ranks.scaling].append(run)
    groups = [
        group for group in by_device.values() if len({(r.content["platform"], r.content["engine"]) for r in group}) > 1
    ]
    return [(group[0].hardware.short, tuple(group)) for group in groups]


def same_framework(members: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Platforms and engines that ran on more than one device: what differs there is not the framework."""
    by_engine: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in members:
        if run.hardware.known:
            by_engine[run.content["platform"], run.content["engine"], run.ranks.words].append(run)
    groups = [group for group in by_engine.values() if len({r.hardware.short.casefold() for r in group}) > 1]
    return [
        (", ".join(filter(None, dict.fromkeys(key))), tuple(group))
        for key, group in by_engine.items()
        if group in groups
    ]


def merged(repeats: Sequence[Figure]) -> dict[str, Any]:
    """The repeats of one figure as one: median or sum, extremes, and all that has to be said of them.

    A training that misses its target is never left out: its time counts as longer than any other.
    """
    absent = [f for f in repeats if f.n == 0 and f.reason.endswith(metrics.NOT_RUN)]
    repeats = repeats if len(absent) == len(repeats) else [f for f in repeats if f not in absent]
    metric = metrics.METRIC[repeats[0].metric]
    counted = [f for f in repeats if f.never or not f.reason]
    values = [math.inf if f.never else f.value for f in counted] or [math.nan]
    value = math.fsum(values) if metric.merge == "sum" else statistics.median(values)
    finite = [v for v in values if math.isfinite(v)]
    notes = list(dict.fromkeys(note for figure in repeats for note in figure.notes))
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


def summary(members: Sequence[Run], ratios: Mapping[tuple[str, str], Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """One row per run, metric and batch size, the repeats merged; the columns are those of COLUMNS.

    Args:
        ratios: the columns from "baseline" on, by run letter and metric.
    """
    rows = []
    for run in members:
        for (key, batch_size), repeats in run.figures.items():
            of_metric = {"phase": metrics.METRIC[key].phase, "metric": key, "batch_size": batch_size}
            compared = (ratios or {}).get((run.letter, key), {}) if batch_size is None else {}
            rows.append({**run.identity, **of_metric, **merged(repeats), **compared})
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"cores": "Int64", "batch_size": "Int64"})


@dataclass(frozen=True)
class TraceKey:
    """What two training runs must share for their losses to be the same numbers but for rounding."""

    data: tuple[str, ...]
    initial_params: str
    batch_size: int
    seed: int


Traces = dict[TraceKey, dict[str, np.ndarray]]
"""Losses of the first steps, float64 [steps] with NaN where not finite, by run letter."""


def traces(members: Sequence[Run]) -> Traces:
    """The loss traces of runs of one workload, those that may be laid over each other together."""
    found: defaultdict[TraceKey, dict[str, np.ndarray]] = defaultdict(dict)
    for letter, result in ((run.letter, result) for run in members for result in run.results):
        data, initial = result.content["data"], result.content["initial_params"]["fingerprint"]
        checksums = (data["source"], *sorted(f"{name}={value}" for name, value in data["checksums"].items()))
        for outcome in result.outcomes("training"):
            if outcome["status"] == "ok" and outcome["measurements"]["loss_trace"]:
                measured = outcome["measurements"]
                key = TraceKey(checksums, initial, int(measured["batch_size"]), int(outcome["seed"]))
                found[key].setdefault(letter, np.array(measured["loss_trace"], dtype=float))
    return dict(found)


@dataclass(frozen=True)
class Parting:
    """How far the losses of two runs are apart at most.

    Attributes:
        steps: common steps where both are finite, over all common seeds.
        relative: largest |a - b| / max(|a|, |b|); NaN where no step is common.
        seed, step: where that is (the step counted from 1).
        unequal: common steps where only one of the two is finite.
    """

    first: Run
    second: Run
    seeds: int
    steps: int
    relative: float
    seed: int
    step: int
    unequal: int


def relative_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b| / max(|a|, |b|) over the common length, 0 where both are 0, NaN where one is."""
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    scale = np.maximum(np.abs(a), np.abs(b))
    difference: np.ndarray = np.abs(a - b) / np.where(scale == 0, 1, scale)
    return difference


MAX_TRACED = 40
"""Runs of a section whose loss traces are laid over each other in pairs: 780 of them."""


def partings(members: Sequence[Run], siblings: Sequence[Run] = ()) -> list[Parting]:
    """Every two runs with a comparable trace: of `members`, then each of these with each of `siblings`.

    Of either only the first MAX_TRACED that have a trace are looked at.
    """
    found = []
    by_seed = traces([*members, *siblings])
    traced = {letter for of_run in by_seed.values() for letter in of_run}
    mine = [run for run in members if run.letter in traced][:MAX_TRACED]
    theirs = [run for run in siblings if run.letter in traced][:MAX_TRACED]
    for a, b in (*itertools.combinations(mine, 2), *itertools.product(theirs, mine)):
        common = {
            key.seed: (t[a.letter], t[b.letter]) for key, t in by_seed.items() if {a.letter, b.letter} <= t.keys()
        }
        if common:
            found.append(_parting(a, b, common))
    return found


def _parting(a: Run, b: Run, common: dict[int, tuple[np.ndarray, np.ndarray]]) -> Parting:
    relative, seed, step, steps, unequal = np.nan, min(common), 0, 0, 0
    for this_seed, (x, y) in common.items():
        apart = relative_difference(x, y)
        finite, n = np.isfinite(apart), len(apart)
        steps += int(finite.sum())
        unequal += int((np.isfinite(x[:n]) != np.isfinite(y[:n])).sum())
        if finite.any() and not np.nanmax(apart) <= relative:
            relative, seed, step = float(np.nanmax(apart)), this_seed, int(np.nanargmax(apart)) + 1
    return Parting(a, b, len(common), steps, relative, seed, step, unequal)
