"""Figures with a line per run and a panel per metric: time to target, energy, cost, efficiency."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.analysis.registry import METRIC
from aggregate.analysis.series import Repeats, repeats
from aggregate.render.figures.style import (
    far_apart,
    look_of,
    new_figure,
    plain_numbers,
    row_label,
    rows_of_runs,
)
from aggregate.render.tables import shown


def draw(title: str, runs: Sequence[Run], metrics: Sequence[str]) -> Figure:
    """A line per run and a panel per metric: every repeat, and the median of all."""
    figure = new_figure(title, 1.0 + 0.48 * len(runs))
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for i, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        rows_of_runs(axes, ["" if i else row_label(run) for run in runs])
        _draw_panel(axes, runs, metric)
    return figure


def have(*metrics: str) -> Callable[[Sequence[Run]], list[Run]]:
    """Those runs that have a value of any of the metrics."""
    return lambda runs: [run for run in runs if any(len(repeats(run, metric).values) for metric in metrics)]


def words(of_run: Repeats, metric: str) -> str:
    """The median and how many repeats are behind it, or why there is none."""
    n = len(of_run.values)
    if not n:
        return "not reached" if of_run.missed else "not known"
    median = "median: never" if math.isnan(of_run.middle) else shown(of_run.middle, METRIC[metric])
    return f"{median}  (n = {n}" + f" of {n + of_run.missed}" * bool(of_run.missed) + ")"


def _draw_panel(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    of_runs = [repeats(run, metric) for run in runs]
    present = np.concatenate([of_run.values for of_run in of_runs])
    unit = next((f.unit for run in runs for f in run.repeats(metric) if f.unit), METRIC[metric].unit)
    logarithmic = far_apart(present)
    axes.set_xlabel(", ".join(filter(None, (METRIC[metric].title.strip(), unit, "logarithmic" * logarithmic))))
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(present.min() / 1.5, present.max() * 4)
    elif len(present):
        axes.set_xlim(0, present.max() * 1.5)
    else:
        axes.set_xticks([])
    plain_numbers(axes.xaxis)
    for y, (run, of_run) in enumerate(zip(runs, of_runs, strict=True)):
        text = words(of_run, metric)
        if not len(of_run.values):
            axes.text(0.02, y, text, transform=axes.get_yaxis_transform(), va="center", size=8, style="italic")
            continue
        look, low, high = look_of(run), of_run.values.min(), of_run.values.max()
        axes.plot([low, high], [y, y], color="black", linewidth=1.5, marker="|", markersize=10)
        axes.plot([of_run.middle], [y], look.marker, color=look.colour, markeredgecolor="black", markersize=8)
        axes.annotate(text, (high, y), (8, 0), textcoords="offset points", va="center", size=8)
