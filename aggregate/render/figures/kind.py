"""What a plot is, and one made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run


@dataclass(frozen=True)
class Plot:
    """A plot as files.

    Attributes:
        name: stem of the file names.
        title: what it shows.
        alt: what it shows, in words for those who do not see it.
        png: empty where there is nothing to show.
        svg: the same.
        missing: what is not in it and why.
        notes: what to know when reading it, a sentence each.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: bytes
    missing: str
    notes: tuple[str, ...] = ()


def _says_nothing(run: Run) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of plot.

    Attributes:
        stem: of its file names.
        title: what it shows.
        what: what a run needs to be in it.
        able: of the runs of a section, those that have it.
        draw: draws these.
        says: sentences that belong below it, of one run.
    """

    stem: str
    title: str
    what: str
    able: Callable[[Sequence[Run]], list[Run]]
    draw: Callable[[Sequence[Run]], Figure]
    says: Callable[[Run], list[str]] = _says_nothing


def each(shows: Callable[[Run], bool]) -> Callable[[Sequence[Run]], list[Run]]:
    """Those runs that have something to show by themselves."""
    return lambda runs: [run for run in runs if shows(run)]
