"""Figures with a line per run: its values on the left, the spread of what is behind them on the right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.render.figures.style import far_apart, new_figure, plain_numbers, row_label, rows_of_runs


@dataclass(frozen=True)
class Line:
    """Where a run is drawn: axes of its values, axes of their spread, and its y in both."""

    values: Axes
    spread: Axes
    y: int


def panels(title: str, runs: Sequence[Run]) -> tuple[Figure, dict[str, Line]]:
    """A figure with one labelled line per run and one panel per precision: values on the left, spread on the right.

    Returns:
        The figure, and the Line of each run by its letter.
    """
    by_precision = {p: [run for run in runs if run.content.precision == p] for p in ("fp32", "bf16")}
    each = {precision: members for precision, members in by_precision.items() if members}
    heights = [len(members) + 0.2 for members in each.values()]
    figure = new_figure(title, 0.9 + 0.35 * len(each) + 0.48 * sum(heights))
    grid = figure.subplots(len(each), 2, sharex="col", squeeze=False, height_ratios=heights, width_ratios=(3, 2))
    lines: dict[str, Line] = {}
    for (values, spread), (precision, members) in zip(grid, each.items(), strict=True):
        values.set_title(precision)
        rows_of_runs(values, [row_label(run) for run in members])
        rows_of_runs(spread, [""] * len(members))
        spread.set_yticks([])
        for axes in (values, spread):
            plain_numbers(axes.xaxis)
        lines |= {run.letter: Line(values, spread, y) for y, run in enumerate(members)}
    return figure, lines


def label_below(figure: Figure, values: str, spread: str) -> None:
    """Say below the lowest panels what the axes are."""
    figure.axes[-2].set_xlabel(values)
    figure.axes[-1].set_xlabel(f"{spread}\noutliers are drawn at the edge")


def scale(figure: Figure, every: np.ndarray, unit: str) -> str:
    """Scale the axis of values from 0, or as a logarithm where they lie far apart; returns its label."""
    axes, low, high = figure.axes[-2], every.min(), every.max()
    if not far_apart(every):
        axes.set_xlim(0, high * 1.05)
        return unit
    for panel in figure.axes[::2]:  # the scale is shared, but brings formatters of its own
        panel.set_xscale("log")
        plain_numbers(panel.xaxis)
    axes.set_xlim(low / 1.2, high * 1.2)
    return f"{unit}, logarithmic"


def limits_of(relative: np.ndarray) -> tuple[float, float]:
    """Limits in % that hold all but the outermost of the values; at least 1 % to either side."""
    low, high = np.percentile(relative, (0.5, 99.5))
    return min(-1.0, 1.1 * low), max(1.0, 1.1 * high)


def beside(line: Line, text: str) -> None:
    """Write to the right of a run's line."""
    line.spread.text(
        1.02, line.y, text, transform=line.spread.get_yaxis_transform(), va="center", size=8, linespacing=1.25
    )
