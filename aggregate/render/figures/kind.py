"""What a chart is, and one made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes

from aggregate.analysis.merging import Run
from aggregate.render.figures.bars import Bars
from aggregate.render.figures.style import Looks


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        draw: fills it.
        rows: of runs that stand below one another in it; 0 where they share the axes.
        tips: what a point shows when it is pointed at, by letter of the run: a text a marker.
    """

    title: str
    draw: Callable[[Axes], None]
    rows: int = 0
    tips: dict[str, list[str]] = field(default_factory=dict)


Drawn = Bars | Panel


@dataclass(frozen=True)
class Plot:
    """A chart made of some runs, as files and for the page.

    Attributes:
        name: stem of the file names.
        title: the question it answers.
        alt: what it shows, in words for those who do not see it.
        png: empty where there is nothing to show.
        svg: the same.
        pdf: the same.
        missing: what is not in it and why.
        notes: what to know when reading it, a sentence each.
        panels: for the page: bars as figures, or an SVG image.
        details: whether it is for the sceptic.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: bytes
    missing: str
    notes: tuple[str, ...] = ()
    pdf: bytes = b""
    panels: tuple["Bars | Image", ...] = ()
    details: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """By the ending of their names."""
        return {"png": self.png, "svg": self.svg, "pdf": self.pdf}


@dataclass(frozen=True)
class Image:
    """A panel as SVG.

    Attributes:
        title: above it.
        svg: with text as text, colours by name of CSS variable, and its run on each line.
    """

    title: str
    svg: str


def _says_nothing(run: Run) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of chart.

    Attributes:
        stem: of its file names.
        title: the question it answers.
        what: what a run needs to be in it.
        able: of the runs of a section, those that have it.
        panels: of these runs.
        says: sentences that belong below it, of one run.
        details: whether it is for the sceptic.
    """

    stem: str
    title: str
    what: str
    able: Callable[[Sequence[Run]], list[Run]]
    panels: Callable[[Sequence[Run], Looks], Sequence[Drawn]]
    says: Callable[[Run], list[str]] = _says_nothing
    details: bool = False


def each(shows: Callable[[Run], bool]) -> Callable[[Sequence[Run]], list[Run]]:
    """Those runs that have something to show by themselves."""
    return lambda runs: [run for run in runs if shows(run)]
