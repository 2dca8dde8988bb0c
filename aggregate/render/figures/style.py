"""One style for all plots: colours of Okabe and Ito with a marker and a hatch for each platform, readable in grey."""

from typing import Any, NamedTuple, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from aggregate.analysis.merging import Run, letters
from shared_spec.results.format import Result

RC: Any = {  # what rc_context takes is a literal type of 300 names
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a device name is a $
    "svg.hashsalt": "deit-bench",  # the same figure gives the same file
}
# Okabe and Ito, Color Universal Design (2008), without the yellow that is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
WIDTH = 10.0
"""Inches."""
LOG_FROM = 8.0
"""Values further apart than this factor get a logarithmic axis."""


class Look(NamedTuple):
    """How a platform is told apart."""

    colour: str
    marker: str
    hatch: str


LOOKS = (
    Look("#0072B2", "o", "///"),
    Look("#D55E00", "s", "\\\\\\"),
    Look("#009E73", "D", "..."),
    Look("#CC79A7", "^", "xxx"),
    Look("#E69F00", "v", "ooo"),
)
PLATFORMS = get_args(Result.model_fields["platform"].annotation)
"""In the order of the result format, so that a platform looks the same in all reports."""


def look_of(run: Run) -> Look:
    """Colour, marker and hatch of a run's platform."""
    return LOOKS[PLATFORMS.index(run.content.platform) % len(LOOKS)]


def new_figure(title: str, height: float) -> Figure:
    """An empty figure of the common width; `height` in inches."""
    figure = Figure(figsize=(WIDTH, height))
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=11)
    return figure


def name_of(run: Run) -> str:
    """What ran, on one line; the precision is said by the panel or the legend."""
    c = run.content
    words = dict.fromkeys([c.platform, c.engine] + ["synthetic data"] * (c.data.source == "synthetic"))
    return _shorten(" · ".join(filter(None, (*words, run.ranks.words))), 44)


def row_label(run: Run) -> str:
    """What ran on what, on the two lines beside a row."""
    return f"{run.letter}   {name_of(run)}\n{_shorten(run.hardware.short, 40)}"


def legend(run: Run) -> str:
    """What ran on what, on the one line of a legend."""
    return f"{run.letter}   {name_of(run)} · {run.content.precision} · {_shorten(run.hardware.short, 40)}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def legend_below(figure: Figure, axes: Axes) -> None:
    """The legend of what `axes` shows, below all panels."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8, handlelength=4)


def line_of(run: Run) -> dict[str, Any]:
    """The line of a run, the same in all plots."""
    return line_style(next(i for i, letter in enumerate(letters()) if letter == run.letter))


def line_style(i: int) -> dict[str, Any]:
    """Seven colours; colour, line and marker change together so that each is told apart without the others."""
    markers = "osD^vPX"
    return {
        "color": COLOURS[i % 7], "linestyle": LINES[(i + 2 * (i // 7)) % 4], "marker": markers[i % 7],
        "markevery": (3 * (i % 5), 15), "markersize": 4, "linewidth": 1.1,
    }  # fmt: skip


def plain_numbers(axis: Axis) -> None:
    """Ticks as plain numbers; a logarithm over less than two decades has more, and still more over less than one."""

    def between(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        digits = "23457" if high < 10 * low else "25" if high < 100 * low else ""
        return f"{value:,.12g}" if f"{value:.0e}"[0] in digits else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(FuncFormatter(between))


def rows_of_runs(axes: Axes, labels: list[str]) -> None:
    """Make the y axis a line per run, from the top down."""
    axes.set_yticks(range(len(labels)), labels, linespacing=1.25)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def far_apart(values: np.ndarray) -> bool:
    """Whether a linear axis would squeeze the smaller ones together."""
    return bool(len(values) and values.max() > LOG_FROM * values.min())
