"""What in a result contradicts itself, although the format allows it: times, units and counts that cannot all be true.

A result has raw samples and no percentile to lie about. What can be wrong is that some of its figures are in another
unit, or not of the run that the others are of: each is held against another that knows of the same thing. What can be
seen within one phase stands with that phase, in aggregate.analysis.phases.
"""

from collections import defaultdict
from typing import Any

from aggregate.analysis.phase import Phase
from aggregate.analysis.plausibility import ROUNDING, Problems, apart
from aggregate.analysis.registry import PHASE
from shared_spec.results.format import AnyOutcome, Done, Result
from shared_spec.results.measurements import Convergence, Latency, Training
from shared_spec.results.stability import interval_width
from shared_spec.workload.spec import Profile

MAX_DEVICES = 4096
"""More than one process drives."""
MAX_CORES = 100_000
"""More than any machine has."""
MAX_RESUMED = 10_000
"""A run that was taken up so often would have done nothing else."""


def problems(result: Result) -> Problems:
    """Fields that do not fit one another: of the outcomes, the head of the result and its spec."""
    yield from _spec(result)
    yield from _beyond_counting(result)
    yield from _backends(result)
    seen = set()
    for i, outcome in enumerate(result.phases):
        here, phase = f"/phases/{i}", PHASE[outcome.phase]
        if (key := (phase.name, outcome.repeat)) in seen:
            yield here, f"is repeat {outcome.repeat} of {phase.name} for the second time"
        seen.add(key)
        if isinstance(outcome, Done):
            yield from _lifetime(phase, outcome, here)
            yield from _too_short(phase, outcome.measurements, result.profile.content, f"{here}/measurements")
            yield from phase.contradictions(outcome.measurements, f"{here}/measurements", result)
    yield from _same_work(result)
    yield from _widths(result)


def _spec(result: Result) -> Problems:
    """Whether the spec inside is the one that the result says."""
    spec = result.spec.content
    if result.spec.fingerprint != spec.fingerprint:
        yield "/spec/fingerprint", f"is not that of /spec/content, which is {spec.fingerprint}"
    if result.spec.name != spec.name:
        yield "/spec/name", f"is {result.spec.name!r}, but /spec/content/name is {spec.name!r}"
    if (seed := result.initial_params.seed) != spec.init.seed:
        yield "/initial_params/seed", f"is {seed}, but /spec/content/init/seed is {spec.init.seed}"


def _beyond_counting(result: Result) -> Problems:
    """Numbers of things of which there are not so many."""
    if result.resumed > MAX_RESUMED:
        yield "/resumed", f"is {result.resumed:,}: no run was taken up so often"
    for name, value in result.environment.items():
        if name.endswith("_cores") and isinstance(value, int | float) and not 0 <= value <= MAX_CORES:
            yield f"/environment/{name}", f"is {value:,}, which no machine has"
    if result.cpu_threads and max(result.cpu_threads.count, result.cpu_threads.asked or 0) > MAX_CORES:
        yield "/cpu_threads", f"are more than the {MAX_CORES:,} that any machine runs"
    for i, outcome in enumerate(result.phases):
        if outcome.backend and (count := outcome.backend.device.count) > MAX_DEVICES:
            yield f"/phases/{i}/backend/device/count", f"is {count:,}, and one process drives {MAX_DEVICES:,} at most"
        measured = outcome.measurements
        if isinstance(measured, Convergence) and measured.resumed > MAX_RESUMED:
            yield f"/phases/{i}/measurements/resumed", f"is {measured.resumed:,}: no training was taken up so often"


def _backends(result: Result) -> Problems:
    """What ran, which each phase tells anew."""
    first = result.backend
    for i, backend in enumerate(outcome.backend for outcome in result.phases):
        if backend is None or first is None:
            continue
        here = f"/phases/{i}/backend"
        if backend.engine != result.engine:
            yield f"{here}/engine", f"is {backend.engine!r}, but /engine is {result.engine!r}"
        if (requested := backend.precision.requested) != result.precision:
            yield f"{here}/precision/requested", f"is {requested!r}, but /precision is {result.precision!r}"
        for name, same in (
            ("framework", backend.framework == first.framework),
            ("framework_version", backend.framework_version == first.framework_version),
            ("device", backend.device == first.device),
        ):
            if not same:
                yield f"{here}/{name}", "differs from that of an earlier phase: a result is one run on one machine"


def _lifetime(phase: Phase[Any], outcome: AnyOutcome, here: str) -> Problems:
    timed = phase.seconds(outcome.measurements)
    if timed > outcome.seconds * ROUNDING:
        yield f"{here}/seconds", f"is {outcome.seconds:g}, but the times measured within add up to {timed:g}"


def _too_short(phase: Phase[Any], measured: Any, profile: Profile, here: str) -> Problems:
    """Windows shorter than the profile makes them: all times of such a phase are in a larger unit than seconds."""
    asked: float = getattr(profile, phase.asked, 0)
    for pointer, seconds in phase.windows(measured).items():
        if seconds * ROUNDING < asked:
            yield f"{here}/{pointer}", f"take {seconds:g} s together, but the profile asks for {asked:g} s at least"


def _widths(result: Result) -> Problems:
    """Whether repeats spread as the result says of those that ended too far apart."""
    repeated = {
        "training": [measured.images_per_second for measured in result.measured(Training)],
        "latency": [measured.latency_median for measured in result.measured(Latency)],
    }
    for name, width in (result.wide_intervals or {}).items():
        here, figures = f"/wide_intervals/{name}", repeated.get(name, [])
        if len(figures) < 2:
            yield here, "is of a phase that has no repeats with a figure to agree on"
        elif abs((found := interval_width(figures)) - width) > 1e-6:
            yield here, f"is {width:g}, but its repeats make {found:g}"


def _same_work(result: Result) -> Problems:
    """Times of the same work in different phases and repeats: a training step, and an inference of one image."""
    times: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for i, outcome in enumerate(result.phases):
        if isinstance(outcome, Done):
            for work in PHASE[outcome.phase].work(outcome.measurements, result):
                times[work.what].append((f"/phases/{i}/measurements/{work.pointer}", work.seconds))
    for what, ((first, expected), *others) in times.items():
        for here, seconds in others:
            yield from apart(here, seconds, f"{what} at {first} took", expected)
