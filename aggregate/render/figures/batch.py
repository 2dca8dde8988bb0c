"""Throughput and memory against the batch size, training and inference."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.analysis.series import by_batch
from aggregate.render import answer
from aggregate.render.figures.kind import Kind, each
from aggregate.render.figures.style import legend, legend_below, line_of, new_figure, plain_numbers

PANELS = {
    "batch_throughput": "training, images/s",
    "batch_memory": "training, peak memory, GiB",
    "inference_throughput": "inference, images/s",
}
"""Title by metric."""


def draw(runs: Sequence[Run]) -> Figure:
    """A panel for each metric that any run has, a line for each run."""
    present = [metric for metric in PANELS if any(by_batch(run, metric) for run in runs)]
    figure = new_figure("Throughput and memory against batch size", 3.6 + 0.16 * len(runs))
    panels = figure.subplots(1, len(present), squeeze=False)[0]
    for axes, metric in zip(panels, present, strict=True):
        axes.set_title(PANELS[metric])
        if metric == "batch_memory":  # what grows in proportion is a straight line only on linear axes
            axes.set_xlabel("batch size")
        else:
            axes.set_xlabel("batch size, logarithmic")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        for formatted in (axes.xaxis, axes.yaxis):
            plain_numbers(formatted)
        for run in runs:
            points = by_batch(run, metric)
            style = {**line_of(run), "markevery": None}
            axes.plot([b for b, _ in points], [v for _, v in points], label=legend(run), **style)
        if metric == "batch_memory":
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)  # only now: before, it would keep the axis from growing with what is drawn
    legend_below(figure, panels[0])
    return figure


def _able(run: Run) -> bool:
    return any(by_batch(run, metric) for metric in PANELS)


KIND = Kind("batch", "Throughput and memory against batch", "figure by batch", each(_able), draw, answer.growth)
