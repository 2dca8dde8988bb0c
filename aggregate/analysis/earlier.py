"""Results that a newer one of the same thing has taken the place of: measured by older code, everything else the same."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aggregate.analysis.merging import same_thing
from aggregate.analysis.result import Result
from shared_spec.results.format import Done

MORE_MEASURED = ("quick", "full")
"""Profiles, the one that measures more last: less never takes the place of more."""


@dataclass(frozen=True)
class Earlier:
    """A result that steps back.

    Attributes:
        result: which.
        newest: the newest of those that take its place.
    """

    result: Result
    newest: Result


def step_back(results: Sequence[Result]) -> tuple[list[Result], list[Earlier]]:
    """The results that stand, and those that step back.

    A result steps back where newer ones of one other commit, of the same machine kind, framework, workload, precision and
    data, were asked for as much, and measured every phase that it measured.
    """
    groups: defaultdict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in results:
        groups[same_thing(result)].append(result)
    back = {id(result): newest for group in groups.values() for result, newest in _replaced(group)}
    standing = [result for result in results if id(result) not in back]
    return standing, [Earlier(result, back[id(result)]) for result in results if id(result) in back]


def _replaced(group: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Those of a group that step back, each with the newest that takes its place."""
    replaced = []
    for old in group:
        by_commit: defaultdict[str | None, list[Result]] = defaultdict(list)
        for new in group:
            if _when(new) > _when(old) and _commit(new) != _commit(old) and _amount(new) >= _amount(old):
                by_commit[_commit(new)].append(new)
        covering = [new for newer in by_commit.values() if _measured(newer) >= _measured([old]) for new in newer]
        if covering:
            replaced.append((old, max(covering, key=_when)))
    return replaced


def _when(result: Result) -> str:
    return result.content.created


def _commit(result: Result) -> str | None:
    return result.content.software.git_commit


def _amount(result: Result) -> int:
    return MORE_MEASURED.index(result.content.profile.name)


def _measured(results: Sequence[Result]) -> set[tuple[str, int]]:
    """Phases that ended well; trainings that were evaluated more or less often are different ones."""
    return {
        (outcome.phase, result.spec.training.evaluations_per_epoch if outcome.phase == "convergence" else 0)
        for result in results
        for outcome in result.content.phases
        if isinstance(outcome, Done)
    }
