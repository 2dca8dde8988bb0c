"""Training images/s, and how far every block is from the median."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from aggregate.analysis import series
from aggregate.analysis.merging import Run
from aggregate.render.figures import spread
from aggregate.render.figures.kind import Kind, each
from aggregate.render.figures.style import look_of
from aggregate.render.tables import number

MAX_POINTS = 200
"""Blocks of one run that are drawn: more hide one another, and take an SVG file megabytes."""


def draw(runs: Sequence[Run]) -> Figure:
    """The median and range of the repeats, and how far every block is from that median."""
    repeats = {run.letter: series.throughputs(run) for run in runs}
    middle = {letter: float(np.median(values)) for letter, values in repeats.items()}
    relative = {run.letter: 100 * (series.block_rates(run) / middle[run.letter] - 1) for run in runs}
    title = f"Training throughput at batch {runs[0].result.spec.training.batch_size:,}"
    figure, lines = spread.panels(title, runs)
    limits = spread.limits_of(np.concatenate(list(relative.values())))
    unit = spread.scale(figure, np.concatenate([*repeats.values()]), "images/s")
    spread.label_below(figure, f"median and range of the repeats\n{unit}", "blocks against the median, %")
    for run in runs:
        line, several, look = lines[run.letter], repeats[run.letter], look_of(run)
        if len(several) > 1:
            ends = [min(several), max(several)]
            line.values.plot(ends, [line.y] * 2, color="black", linewidth=1.5, marker="|", markersize=12)
        at = [middle[run.letter]]
        line.values.plot(at, [line.y], look.marker, color=look.colour, markeredgecolor="black", markersize=8)
        blocks = relative[run.letter]
        points = blocks[:: -(-len(blocks) // MAX_POINTS)].clip(*limits)
        line.spread.axvline(0, color="black", linewidth=0.6)
        line.spread.scatter(
            points, line.y + _jitter(len(points)), s=9, marker=look.marker, color=look.colour, alpha=0.5, linewidths=0,
            clip_on=False,
        )  # fmt: skip
        line.spread.set_xlim(*limits)
        behind = f"{_count(len(several), 'repeat')}, {_count(len(blocks), 'block')}"
        spread.beside(line, f"{number(middle[run.letter])} images/s\n{behind}")
    return figure


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _jitter(n: int) -> np.ndarray:
    """Vertical offsets that keep points of one line apart, the same at every call (golden-ratio sequence)."""
    return ((np.arange(n) * 0.6180339887) % 1 - 0.5) * 0.5


def _able(run: Run) -> bool:
    return series.drawable(series.block_rates(run))


KIND = Kind("throughput", "Training throughput", "training window", each(_able), draw)
