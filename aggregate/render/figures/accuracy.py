"""Top-1 against time, energy and cost."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.analysis.series import curves, drawable
from aggregate.render.figures.kind import Kind, each
from aggregate.render.figures.style import far_apart, legend, legend_below, line_of, new_figure, plain_numbers
from shared_spec.results.measurements import Convergence

MAX_SEEDS = 8
"""Trainings of one run that are drawn: more hide one another."""


def draw(runs: Sequence[Run]) -> Figure:
    """Top-1 against time, energy and cost, a line per seed."""
    title = f"Accuracy on all test images, a line per seed (of a run's first {MAX_SEEDS})"
    figure = new_figure(title, 3.6 + 0.16 * len(runs))
    panels = figure.subplots(1, 3, sharey=True)
    currency = runs[0].prices.unit
    for axes, label in zip(panels, ("time, min", "energy, kJ", f"rental (else owning), {currency}"), strict=True):
        axes.set_xlabel(label)
        axes.axhline(100 * runs[0].result.spec.training.target_top1, color="black", linewidth=0.8, linestyle=":")
    panels[0].set_ylabel("top-1, % (dotted: target)")
    for run in runs:
        for seed, curve in enumerate(curves(run)[:MAX_SEEDS]):
            style = {**line_of(run), "markevery": None, "label": legend(run) if seed == 0 else None}
            for axes, x in zip(panels, (curve.minutes, curve.kilojoules, curve.cost), strict=True):
                if x is not None:
                    axes.plot(x, curve.top1, **style)
    for axes in panels:
        _log_where_far_apart(axes)
    legend_below(figure, panels[0])
    return figure


def _log_where_far_apart(axes: Axes) -> None:
    """A logarithmic axis where the lines end far apart; a word where there is none but the target's."""
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in axes.lines[1:]]
    ends = np.array([np.nanmax(x) for x in drawn if np.isfinite(x).any()])
    if not len(ends):
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", style="italic")
        axes.set_xticks([])
    elif drawable(ends) and far_apart(ends):
        axes.set_xscale("log")
        axes.set_xlabel(f"{axes.get_xlabel()}, logarithmic")
    plain_numbers(axes.xaxis)


def _able(run: Run) -> bool:
    return bool(run.measured(Convergence))


KIND = Kind("accuracy", "Accuracy against time, energy and cost", "full training", each(_able), draw)
