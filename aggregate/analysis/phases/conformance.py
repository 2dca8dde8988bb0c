"""The phase that proves on the machine itself that model, gradients and updates are the specified ones."""

import math
from collections.abc import Iterator, Sequence

from aggregate.analysis.metrics import Figure, Metric, absent
from aggregate.analysis.phase import Phase, Source
from aggregate.analysis.plausibility import Problems
from aggregate.analysis.result import Result
from shared_spec.results import format
from shared_spec.results.format import Failed
from shared_spec.results.measurements import Conformance
from shared_spec.results.quantities import Check

METRICS = (
    Metric("conformance_checks", "conformance", "Conformance checks passed", "", 4,
           "checks on this machine that model, gradients and updates are the specified ones", "sum"),
    Metric("conformance_worst", "conformance", "Worst figure / its bound", "", 2,
           "largest ratio of a check's figure to its bound; at most 1 where all passed, exact ones counting as 0"),
)  # fmt: skip

PROOF = ("parameters", "logits", "gradients", "trace")
"""What the names of checks begin with that prove model, gradients and updates."""
STATUSES = ("failed", "passed", "not checked")
"""From what decides to what says nothing."""


def _derive(measured: Conformance, source: Source) -> Iterator[Figure]:
    checks = measured.checks
    yield Figure("conformance_checks", sum(check.passed for check in checks), len(checks))
    ratios = [_of_bound(check.figure, check.bound) for check in checks]
    if all(map(math.isfinite, ratios)):
        yield Figure("conformance_worst", max(ratios), len(ratios))
    else:
        yield absent("conformance_worst", "a figure is not finite, or above a bound of 0", len(ratios))


def _of_bound(figure: float | None, bound: float) -> float:
    """A figure as a part of its bound; 0 where both are, which is how an exact check is passed."""
    if figure is None or (bound <= 0 < figure):
        return math.inf
    return figure / bound if bound > 0 else 0.0


def _contradictions(measured: Conformance, here: str, result: format.Result) -> Problems:
    if measured.passed != all(check.passed for check in measured.checks):
        yield f"{here}/passed", f"is {measured.passed}, which is not what the checks say"
    for i, check in enumerate(measured.checks):
        if check.bound < 0 or (check.figure is not None and check.figure < 0):
            yield f"{here}/checks/{i}", "has a figure or a bound below 0, and both are sizes"
        within = check.figure is not None and check.figure <= check.bound
        if check.passed != within:
            yield f"{here}/checks/{i}/passed", f"is {check.passed}, which is not what figure and bound say"


def conformance_of(result: Result) -> tuple[str, str]:
    """Status of a result (one of STATUSES) and why it is not passed."""
    outcomes = result.outcomes("conformance")
    if not outcomes:
        return "not checked", "the conformance phase was not run: nothing shows that this is the specified model"
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            return "failed", f"the conformance phase itself failed: {outcome.reason}"
    if failures := [*_failures(result)]:
        return "failed", f"failed {_first(failures)}"
    if result.objections:
        return "failed", f"not proved: {_first(result.objections)}"
    names = [check.name for measured in result.measured(Conformance) for check in measured.checks]
    if lacking := [kind for kind in PROOF if not any(name.startswith(kind) for name in names)]:
        return "not checked", f"the conformance phase has no check of {' and '.join(lacking)}"
    return "passed", ""


def _failures(result: Result) -> list[str]:
    """Checks that were not passed: those of conformance, and where these were those of what was timed."""
    own = [check for measured in result.measured(Conformance) for check in measured.failed_checks]
    timed = () if own else result.content.failed_checks()
    return [_failure(check) for check in own] + [f"{phase}: {_failure(check)}" for phase, check in timed]


def _first(texts: Sequence[str], most: int = 3) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _failure(check: Check) -> str:
    figure = "not finite" if check.figure is None else f"{check.figure:.3g}"
    return f"{check.name} ({figure}, bound {check.bound:.3g})"


PHASE = Phase("conformance", METRICS, _derive, _contradictions)
