"""One style for all charts: colour is the platform, line and marker are the device, and a letter says which run.

The colours are told apart in grey too, by their lightness. The page has a second set of them for the dark: it knows the
hexadecimal codes below by the names of CSS variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from aggregate.analysis.merging import Run
from aggregate.render import words

INK, DIM, LINE, PAGE = "#1b1b1b", "#5b5b5b", "#d9d9d9", "#ffffff"
COLOURS = {"mlx": "#003d7a", "tf-cuda": "#c58200", "torch-ipex": "#bb5566"}
"""After Paul Tol's high-contrast scheme (2021), the yellow darkened so that lines of it show on white."""
OTHER_COLOUR = "#4d7f3a"
CSS = {INK: "--text", DIM: "--dim", LINE: "--line", PAGE: "--page", OTHER_COLOUR: "--other"} | {
    colour: f"--{platform}" for platform, colour in COLOURS.items()
}
"""The page's variable for each colour of a chart."""
RC: dict[str, Any] = {
    "figure.dpi": 150,
    "figure.facecolor": PAGE,
    "axes.facecolor": PAGE,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": DIM,
    "xtick.color": DIM,
    "ytick.color": DIM,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a device name is a $
    "svg.hashsalt": "deit-bench",  # the same figure gives the same file
}
MARKERS, DASHES, FILLS = "osD^vPX", ("-", "--", "-.", ":"), ("full", "none", "left", "top")
APART = 10
"""Points between the letters at the ends of lines."""
LOG_FROM = 8.0
"""Values further apart than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Look:
    """How a run is told apart: colour by platform, marker and dash by device, filling where both are the same."""

    colour: str
    marker: str
    dash: str
    fill: str

    @property
    def line(self) -> dict[str, Any]:
        """As matplotlib's plot takes it."""
        return {
            "color": self.colour, "marker": self.marker, "linestyle": self.dash, "fillstyle": self.fill,
            "markersize": 4, "linewidth": 1.3, "markeredgewidth": 1,
        }  # fmt: skip


Looks = dict[str, Look]
"""Of each run, by its letter."""


def colour_of(run: Run) -> str:
    """Of a run's platform."""
    return COLOURS.get(run.content.platform, OTHER_COLOUR)


def looks(runs: Sequence[Run]) -> Looks:
    """The looks of all runs of a report, so that each is the same in all its charts."""
    devices = list(dict.fromkeys(run.hardware.short.casefold() for run in runs))
    made: Looks = {}
    taken: list[tuple[str, str]] = []
    for run in runs:
        i = devices.index(run.hardware.short.casefold())
        which = (run.content.platform, devices[i])
        fill = FILLS[taken.count(which) % len(FILLS)]
        made[run.letter] = Look(colour_of(run), MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)], fill)
        taken.append(which)
    return made


def shorten(text: str, width: int = 40) -> str:
    """Cut to a width, with an ellipsis where anything is lost."""
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def name_of(run: Run) -> str:
    """Letter, device and framework on one line."""
    synthetic = ", synthetic data" if run.content.data.source == "synthetic" else ""
    return f"{run.letter}  {shorten(words.device(run))} · {shorten(words.framework(run))}{synthetic}"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; both in inches."""
    return Figure(figsize=(width, height))


def plain_numbers(axis: Axis) -> None:
    """Ticks as plain numbers; a logarithm over less than two decades has more, and still more over less than one."""

    def between(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        digits = "2357" if high < 10 * low else "25" if high < 100 * low else ""
        return f"{value:,.12g}" if f"{value:.0e}"[0] in digits else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(FuncFormatter(between))


def powers_of_ten(axis: Axis) -> None:
    """Ticks of a logarithm over many decades."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def far_apart(values: Sequence[float]) -> bool:
    """Whether a linear axis would squeeze the smaller ones together."""
    return bool(len(values)) and max(values) > LOG_FROM * min(values)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float]], looks: Looks) -> None:
    """Write each line's letter at its end, apart from one another: the key for those who see no colours.

    Args:
        axes: with all lines drawn.
        ends: letter, x and y of each.
        looks: of the runs.
    """
    floor = -1e9
    heights = {letter: 72 / axes.figure.dpi * axes.transData.transform((x, y))[1] for letter, x, y in ends}
    for letter, x, y in sorted(ends, key=lambda end: heights[end[0]]):
        at = min(max(heights[letter], floor + APART), heights[letter] + 5 * APART)
        floor = at
        axes.annotate(
            letter, (x, y), (6, at - heights[letter]), textcoords="offset points", va="center", size=9, weight="bold",
            color=looks[letter].colour, annotation_clip=False,
        )  # fmt: skip
