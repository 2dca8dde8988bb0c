"""What each run was measured on and by: the table that a sceptic asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aggregate.analysis import confounders
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.merging import Run
from aggregate.analysis.result import Result
from aggregate.render import words
from aggregate.render.tables import MISSING


@dataclass(frozen=True)
class Listing:
    """A table of words, a line a run.

    Attributes:
        title: what is listed.
        heads: of the columns.
        runs: what the lines stand for.
        lines: a text for each column.
    """

    title: str
    heads: tuple[str, ...]
    runs: tuple[Run, ...]
    lines: tuple[tuple[str, ...], ...]


def listing(comparison: Comparison, *, ages: bool = True) -> Listing:
    """Device, framework, system, driver, memory, power limit, commit, date and, where asked for, age of every run."""
    made = comparison.made
    columns: dict[str, Callable[[Result], str]] = {
        "System": lambda result: confounders.system(result.content),
        "Driver": lambda result: _fact(result, "gpu_driver"),
        "Memory": _memory,
        "Power limit": _power_limit,
        "Measured": lambda result: result.content.profile.name,
        "Commit": _commit,
        "Date": lambda result: result.content.created[:10],
        "Age": lambda result: age(result, made),
        "File": lambda result: result.file,
    }
    if not ages:
        del columns["Age"]
    lines = tuple(
        (run.letter, words.device(run), confounders.framework(run), run.content.precision,
         *(_joined(run.results, tell) for tell in columns.values()))
        for run in comparison.runs
    )  # fmt: skip
    return Listing("Systems", ("", "Device", "Framework", "Precision", *columns), tuple(comparison.runs), lines)


def age(result: Result, now: datetime) -> str:
    """How old a result is: "today", "3 days", "14 months"; a date that is none has no age."""
    try:
        days = (now - datetime.fromisoformat(result.content.created).astimezone(UTC)).days
    except ValueError:
        return MISSING
    if days < 1:
        return "today"
    number, unit = (days, "day") if days < 60 else (days // 30, "month")
    return f"{number} {unit}{'s' * (number != 1)}"


def _joined(results: Sequence[Result], tell: Callable[[Result], str]) -> str:
    return "; ".join(dict.fromkeys(map(tell, results)))


def _fact(result: Result, name: str) -> str:
    known = result.content.environment.get(name)
    return MISSING if known is None else str(known)


def _memory(result: Result) -> str:
    known = result.content.environment.get("memory_bytes")
    return f"{known / 2**30:,.0f} GiB" if type(known) is int else MISSING


def _power_limit(result: Result) -> str:
    environment, before = result.content.environment, result.content.state_before
    for facts, name in ((before, "gpu_power_limit_watts"), (environment, "gpu_default_power_limit_watts")):
        known = facts.get(name)
        if isinstance(known, (int, float)):
            return f"{known:,.0f} W"
    return MISSING


def _commit(result: Result) -> str:
    software = result.content.software
    return (software.git_commit or "unknown")[:7] + " (changed)" * (software.git_clean is False)
