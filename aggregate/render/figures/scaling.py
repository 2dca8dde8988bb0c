"""Scaling efficiency against the number of ranks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from aggregate.analysis.merging import Run
from aggregate.analysis.scaling import Scaling, scalings
from aggregate.analysis.series import drawable
from aggregate.render.figures.kind import Kind, Panel
from aggregate.render.figures.style import INK, Looks, label_ends


def panels(runs: Sequence[Run], looks: Looks) -> list[Panel]:
    """Efficiency against the number of ranks, with its interval; a line per thing and kind of scaling."""
    drawn = _drawable_scalings(runs)

    def draw(axes: Axes) -> None:
        axes.set_xlabel("ranks, logarithmic scale")
        axes.set_ylabel("% of N times one process")
        axes.set_xscale("log", base=2)
        sizes = sorted({1} | {run.ranks.size for each in drawn for run in each.runs})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axhline(100, color=INK, linewidth=0.9, linestyle=":")
        ends = [_draw_one(axes, each, looks) for each in drawn]
        axes.set_ylim(bottom=0)
        label_ends(axes, ends, looks)

    return [Panel("Scaling efficiency, each with its 95 % interval", draw)]


def _draw_one(axes: Axes, each: Scaling, looks: Looks) -> tuple[str, float, float]:
    """Draw the line of one scaling; returns the letter, x and y of its end."""
    last = each.runs[-1]
    middle, low, high = (np.array(ends) for ends in zip(*(point.efficiency for point in each.points), strict=True))
    ranks = [run.ranks.size for run in each.runs]
    axes.plot([1, *ranks], 100 * np.array([1.0, *middle]), gid=f"run-{last.letter}", **looks[last.letter].line)
    half = 100 * np.nan_to_num(np.array([middle - low, high - middle]))
    axes.errorbar(ranks, 100 * middle, half.clip(0), fmt="none", ecolor=looks[last.letter].colour, capsize=4)
    return last.letter, ranks[-1], 100 * float(middle[-1])


def _drawable_scalings(runs: Sequence[Run]) -> list[Scaling]:
    """Those with an efficiency that an axis can carry."""
    return [each for each in scalings(runs) if drawable(np.array([point.efficiency[0] for point in each.points]))]


def _able(runs: Sequence[Run]) -> list[Run]:
    """Those trained by several ranks, and by one process to compare with."""
    drawn = {run.letter for each in _drawable_scalings(runs) for run in (each.alone, *each.runs)}
    return [run for run in runs if run.letter in drawn]


KIND = Kind(
    "scaling", "What do more devices bring?", "training by several ranks, and by one to compare with", _able, panels
)
