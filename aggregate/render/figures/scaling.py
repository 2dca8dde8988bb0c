"""Scaling efficiency against the number of ranks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from aggregate.analysis.merging import Run
from aggregate.analysis.scaling import Scaling, scalings
from aggregate.analysis.series import drawable
from aggregate.render.figures.kind import Kind
from aggregate.render.figures.style import legend, line_style, new_figure


def draw(runs: Sequence[Run]) -> Figure:
    """Efficiency against the number of ranks, with its interval; a line per thing and kind of scaling."""
    drawn = _drawable_scalings(runs)
    figure = new_figure("Scaling efficiency with its 95 % interval", 3.6 + 0.16 * len(drawn))
    axes = figure.subplots()
    axes.set_xlabel("ranks, logarithmic")
    axes.set_ylabel("% of N times one process")
    axes.set_xscale("log", base=2)
    sizes = sorted({1} | {run.ranks.size for each in drawn for run in each.runs})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axhline(100, color="black", linewidth=0.8, linestyle=":")
    for i, each in enumerate(drawn):
        style = {**line_style(i), "markevery": None}
        middle, low, high = (np.array(ends) for ends in zip(*(point.efficiency for point in each.points), strict=True))
        ranks = [run.ranks.size for run in each.runs]
        letters = ", ".join(run.letter for run in each.runs)
        label = f"{letters} against {legend(each.alone)}, {each.kind}"
        axes.plot([1, *ranks], 100 * np.array([1.0, *middle]), label=label, **style)
        spread = 100 * np.nan_to_num(np.array([middle - low, high - middle]))
        axes.errorbar(ranks, 100 * middle, spread.clip(0), fmt="none", ecolor=style["color"], capsize=4)
    axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", fontsize=8, handlelength=4)
    return figure


def _drawable_scalings(runs: Sequence[Run]) -> list[Scaling]:
    """Those with an efficiency that an axis can carry."""
    return [each for each in scalings(runs) if drawable(np.array([point.efficiency[0] for point in each.points]))]


def _able(runs: Sequence[Run]) -> list[Run]:
    """Those trained by several ranks, and by one process to compare with."""
    drawn = [run for each in _drawable_scalings(runs) for run in (each.alone, *each.runs)]
    return [run for run in runs if run in drawn]


KIND = Kind(
    "scaling", "Scaling efficiency", "training by several ranks, and by one to compare with", _able, draw
)  # fmt: skip
