"""Batch-1 latency: median and p90 in ms, and the distribution of all samples around the median."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from aggregate.analysis import series
from aggregate.analysis.merging import Run
from aggregate.render.figures import spread
from aggregate.render.figures.kind import Kind, each
from aggregate.render.figures.style import look_of
from aggregate.render.tables import number


def draw(runs: Sequence[Run]) -> Figure:
    """Median and p90 of each run, and a histogram of its samples."""
    samples = {run.letter: series.latencies(run) for run in runs}
    quantiles = {run.letter: series.latency_quantiles(run) for run in runs}
    relative = {run.letter: 100 * (samples[run.letter] / quantiles[run.letter][0] - 1) for run in runs}
    figure, lines = spread.panels("Latency at batch 1, image in host memory to logits in host memory", runs)
    limits = spread.limits_of(np.concatenate(list(relative.values())))
    unit = spread.scale(figure, np.concatenate([*quantiles.values()]), "ms")
    spread.label_below(figure, f"median (symbol) to p90 (bar)\n{unit}", "samples against the median, %")
    for run in runs:
        line, (median, p90), look = lines[run.letter], quantiles[run.letter], look_of(run)
        line.values.plot([median, p90], [line.y] * 2, color="black", linewidth=1.5)
        line.values.plot([p90], [line.y], "|", color="black", markersize=12, markeredgewidth=2)
        line.values.plot([median], [line.y], look.marker, color=look.colour, markeredgecolor="black", markersize=7)
        counts, edges = np.histogram(relative[run.letter].clip(*limits), np.linspace(*limits, 81))
        base = line.y + 0.35
        line.spread.stairs(
            base - 0.8 * counts / counts.max(), edges, baseline=base, fill=True, alpha=0.6, color=look.colour,
            hatch=look.hatch,
        )  # fmt: skip
        line.spread.axvline(0, color="black", linewidth=0.6)
        line.spread.set_xlim(*limits)
        n = f"n = {len(samples[run.letter]):,}"
        spread.beside(line, f"median {number(median)} ms, p90 {number(p90)} ms\n{n}")
    return figure


def _able(run: Run) -> bool:
    return series.drawable(series.latencies(run))


KIND = Kind("latency", "Latency distribution", "set of latency samples", each(_able), draw)
