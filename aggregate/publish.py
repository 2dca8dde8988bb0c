"""Whether a result is fit to be published: what stands in the way, and what its readers will ask."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregate.analysis.phases.conformance import conformance_of
from aggregate.analysis.reading import clean, load
from aggregate.analysis.result import Result
from aggregate.analysis.standard import differences, standard
from shared_spec.results import privacy
from shared_spec.results.format import Done, Failed

PRIVATE = {
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    "a path of a user": re.compile(r"(?:/(?:home|Users|root)/|\\Users\\)\S*", re.IGNORECASE),
    "an address of a private network": re.compile(r"\b(?:192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2}\b"),
    "an address with a password": re.compile(r"\b\w+://[^/\s]*:[^/\s]*@\S*"),
    "a hardware address": re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE),
    "a key": re.compile(r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|hf_\w{20,}|sk-[\w-]{20,}|xox[abp]-[\w-]{10,})"),
    "a serial number": re.compile(r"\bGPU-[0-9a-f]{8}-[0-9a-f-]{20,}", re.IGNORECASE),
}
"""What must not be in a text, and how it is recognised."""
VERSIONS = "/software/packages/"
"""Where numbers with dots are versions."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        sign: "ok", "no" where it prevents publication, "!" where readers should know.
        text: what was found.
    """

    sign: str
    text: str

    @property
    def prevents(self) -> bool:
        """Whether the result must not be published as it is."""
        return self.sign == "no"


def check(path: Path) -> list[Finding]:
    """Everything there is to say of a result file before it is published."""
    loaded = load([path])
    if len(loaded.results) != 1 or loaded.problems:
        problems = [Finding("no", str(problem)) for problem in loaded.problems]
        return problems or [Finding("no", f"{clean(str(path))}: give one result file")]
    (result,) = loaded.results
    return [Finding("ok", "valid: it fits the schema and does not contradict itself"), *_findings(result)]


def _findings(result: Result) -> Iterator[Finding]:
    yield _workload(result)
    yield _conformance(result)
    yield from _measured(result)
    yield from _doubts(result)
    yield _commit(result)
    yield from _privacy(result)
    yield from _remarks(result)


def _workload(result: Result) -> Finding:
    if result.spec.fingerprint == standard().fingerprint:
        return Finding("ok", "the standard workload")
    changed = "; ".join(differences(result.spec)[:6]) or "its version differs"
    return Finding("no", f"not the standard workload ({changed}): run it without --spec from the newest commit")


def _conformance(result: Result) -> Finding:
    status, why = conformance_of(result)
    if status == "passed":
        return Finding("ok", "conformance passed: this machine computed the specified model")
    return Finding("no", f"conformance {status}: {why}")


def _measured(result: Result) -> Iterator[Finding]:
    if not any(isinstance(outcome, Done) and outcome.phase != "conformance" for outcome in result.content.phases):
        yield Finding("no", "nothing was measured: no phase but conformance came to its end")


def _doubts(result: Result) -> Iterator[Finding]:
    unbelievable = [Finding("no", f"hard to believe: {doubt}") for doubt in result.doubts]
    yield from unbelievable or [Finding("ok", "its figures fit one another, and what such trainings do")]


def _commit(result: Result) -> Finding:
    software = result.content.software
    if software.git_commit is None:
        return Finding("no", "it does not say which commit measured: run it from a git checkout")
    if software.git_clean is not True:
        return Finding("no", "measured from a checkout with changes: commit or drop them, and measure again")
    return Finding("ok", f"measured from commit {software.git_commit[:10]}, unchanged")


def _texts(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a result, keys too, with its JSON pointer."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{pointer}/{key}", key
            yield from _texts(item, f"{pointer}/{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _texts(item, f"{pointer}/{i}")


def _privacy(result: Result) -> Iterator[Finding]:
    private = [Finding("no", text) for text in dict.fromkeys(_private(result))]
    yield from private or [Finding("ok", "nothing private found; look it over all the same")]


def _private(result: Result) -> Iterator[str]:
    yield from (f"{kind} in its file name" for kind in _kinds(result.file))
    for pointer, text in _texts(result.content.to_dict()):
        if not pointer.startswith(VERSIONS):
            yield from (f"{kind} at {pointer}: take it out" for kind in _kinds(text))


def _kinds(text: str) -> Iterator[str]:
    kinds = [kind for kind, pattern in PRIVATE.items() if pattern.search(text)]
    yield from kinds
    if not kinds and privacy.scrub(text) != text:
        yield "a path, or the name of this host or user,"


def _remarks(result: Result) -> Iterator[Finding]:
    """What does not stand in the way, but will be seen in the report."""
    content = result.content
    if content.data.source == "synthetic":
        yield Finding("!", "measured on the synthetic stand-in: no accuracy, and marked so in every table")
    if content.profile.name != "full":
        yield Finding("!", f"the {content.profile.name} profile: fewer repeats than full")
    if not result.outcomes("convergence"):
        yield Finding("!", "no full training: no time to target, no cost")
    for outcome in content.phases:
        if isinstance(outcome, Failed):
            yield Finding("!", f"{outcome.phase} (repeat {outcome.repeat}) failed: {outcome.reason}")
    yield from (Finding("!", warning) for warning in content.warnings)
