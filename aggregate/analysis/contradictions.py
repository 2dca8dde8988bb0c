"""What in a result contradicts itself, although the schema allows it: times, units and counts that cannot all be true.

A result has raw samples and no percentile to lie about. What can be wrong is that some of its figures are in another
unit, or not of the run that the others are of: each is held against another that knows of the same thing. What can be
seen within one phase stands with that phase, in aggregate.analysis.phases.
"""

from collections import defaultdict
from typing import Any

from aggregate.analysis.phase import Head, Phase
from aggregate.analysis.plausibility import CLOCK_TOLERANCE, Problems, apart
from aggregate.analysis.registry import PHASE
from aggregate.analysis.result import Measured
from shared_spec.workload.spec import Spec


def problems(content: dict[str, Any], spec: Spec) -> Problems:
    """Fields that do not fit one another: of the outcomes, the head of the result and its spec."""
    head = Head(content, spec)
    yield from _spec(head)
    yield from _backends(content)
    seen = set()
    for i, outcome in enumerate(content["phases"]):
        here, phase = f"/phases/{i}", PHASE[outcome["phase"]]
        if (key := (phase.name, outcome["repeat"])) in seen:
            yield here, f"is repeat {key[1]} of {phase.name} for the second time"
        seen.add(key)
        if outcome["status"] == "ok":
            yield from _lifetime(phase, outcome, here)
            yield from _too_short(phase, outcome["measurements"], content["profile"]["content"], f"{here}/measurements")
            yield from phase.contradictions(outcome["measurements"], f"{here}/measurements", head)
    yield from _same_work(head)


def _spec(head: Head) -> Problems:
    """Whether the spec inside is the one that the result says."""
    content, spec = head.content["spec"], head.spec
    if content["fingerprint"] != spec.fingerprint:
        yield "/spec/fingerprint", f"is not that of /spec/content, which is {spec.fingerprint}"
    if content["name"] != spec.name:
        yield "/spec/name", f"is {content['name']!r}, but /spec/content/name is {spec.name!r}"
    if (seed := head.content["initial_params"]["seed"]) != spec.init.seed:
        yield "/initial_params/seed", f"is {seed}, but /spec/content/init/seed is {spec.init.seed}"


def _backends(content: dict[str, Any]) -> Problems:
    """What ran, which each phase tells anew."""
    backends = [(f"/phases/{i}/backend", o["backend"]) for i, o in enumerate(content["phases"]) if o["backend"]]
    for here, backend in backends:
        if backend["engine"] != content["engine"]:
            yield f"{here}/engine", f"is {backend['engine']!r}, but /engine is {content['engine']!r}"
        if (requested := backend["precision"]["requested"]) != content["precision"]:
            yield f"{here}/precision/requested", f"is {requested!r}, but /precision is {content['precision']!r}"
        for name in ("framework", "framework_version", "device"):
            if backend[name] != backends[0][1][name]:
                yield f"{here}/{name}", "differs from that of an earlier phase: a result is one run on one machine"


def _lifetime(phase: Phase, outcome: dict[str, Any], here: str) -> Problems:
    timed = phase.seconds(outcome["measurements"])
    if timed > outcome["seconds"] * CLOCK_TOLERANCE:
        yield f"{here}/seconds", f"is {outcome['seconds']:g}, but the times measured within add up to {timed:g}"


def _too_short(phase: Phase, measured: Measured, profile: dict[str, Any], here: str) -> Problems:
    """Windows shorter than the profile makes them: all times of such a phase are in a larger unit than seconds."""
    asked = profile.get(phase.asked)
    if not isinstance(asked, int | float):
        return
    for pointer, seconds in phase.windows(measured).items():
        if seconds * CLOCK_TOLERANCE < asked:
            yield f"{here}/{pointer}", f"take {seconds:g} s together, but the profile asks for {asked:g} s at least"


def _same_work(head: Head) -> Problems:
    """Times of the same work in different phases and repeats: a training step, and an inference of one image."""
    times: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for i, outcome in enumerate(head.content["phases"]):
        if outcome["status"] == "ok":
            for what, pointer, seconds in PHASE[outcome["phase"]].work(outcome["measurements"], head):
                times[what].append((f"/phases/{i}/measurements/{pointer}", seconds))
    for what, ((first, expected), *others) in times.items():
        for here, seconds in others:
            yield from apart(here, seconds, f"{what} at {first} took", expected)
