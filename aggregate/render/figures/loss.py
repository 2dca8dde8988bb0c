"""Losses of the first training steps, laid over each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from aggregate.analysis.losses import one_seed_each, relative_difference, traces
from aggregate.analysis.merging import Run
from aggregate.render.figures.kind import Kind, each
from aggregate.render.figures.style import legend, line_of, new_figure


def draw(runs: Sequence[Run]) -> Figure:
    """Losses of the first steps laid over each other, and how far each is from the first run's."""
    groups = one_seed_each(traces(runs))
    heights = [2.9 + 0.16 * len(of_run) for of_run in groups.values()]
    figure = new_figure("Loss of the first training steps", 0.6 + sum(heights))
    parts = figure.subfigures(len(groups), squeeze=False, height_ratios=heights)
    styles = {run.letter: line_of(run) for run in runs}
    names = {run.letter: legend(run) for run in runs}
    for part, (key, of_run) in zip(parts.flat, groups.items(), strict=True):
        left, right = part.subplots(1, 2) if len(of_run) > 1 else (part.subplots(), None)
        left.set_title(f"{key.data[0]}, batch {key.batch_size:,}, seed {key.seed}")
        left.set_xlabel("step")
        left.set_ylabel("cross-entropy")
        for letter, losses in of_run.items():
            left.plot(np.arange(1, len(losses) + 1), losses, label=names[letter], **styles[letter])
        if right is not None:
            _divergence(right, of_run, styles)
        part.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8, handlelength=4)
    return figure


def _divergence(axes: Axes, of_run: dict[str, np.ndarray], styles: dict[str, Any]) -> None:
    """How far each trace has been from the first one at most up to a step; what is equal so far is not drawn."""
    (reference, first), *others = of_run.items()
    axes.set_title(f"largest relative difference from {reference} so far")
    axes.set_xlabel("step")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    so_far = {letter: np.fmax.accumulate(relative_difference(losses, first)) for letter, losses in others}
    apart = np.concatenate([values[values > 0] for values in so_far.values()])
    if not len(apart):
        axes.text(0.5, 0.5, "all are equal", transform=axes.transAxes, ha="center")
        return
    axes.set_ylim(10 ** np.floor(np.log10(apart.min())), 10 ** np.ceil(np.log10(apart.max()) + 0.05))
    for letter, values in so_far.items():
        axes.plot(np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan), **styles[letter])


def _able(run: Run) -> bool:
    return bool(traces([run]))


KIND = Kind("loss", "Loss traces", "loss trace", each(_able), draw)
