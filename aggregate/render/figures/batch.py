"""Throughput and memory against the batch size, training and inference."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from aggregate.analysis.merging import Run
from aggregate.analysis.series import by_batch
from aggregate.render import answer
from aggregate.render.figures.kind import Kind, Panel, each
from aggregate.render.figures.style import Looks, label_ends, plain_numbers
from aggregate.render.tables import number

PANELS = {
    "batch_throughput": ("Training throughput", "images/s"),
    "batch_memory": ("Peak memory of training", "GiB"),
    "inference_throughput": ("Inference throughput", "images/s"),
}
"""Title and unit by metric."""


def panels(runs: Sequence[Run], looks: Looks) -> list[Panel]:
    """A panel for each metric that any run has, a line for each run."""
    return [_panel(metric, runs, looks) for metric in PANELS if any(by_batch(run, metric) for run in runs)]


def _panel(metric: str, runs: Sequence[Run], looks: Looks) -> Panel:
    title, unit = PANELS[metric]
    lines = {run.letter: points for run in runs if (points := by_batch(run, metric))}
    linear = metric == "batch_memory"  # what grows in proportion is a straight line only on linear axes

    def draw(axes: Axes) -> None:
        axes.set_xlabel("batch size" if linear else "batch size, logarithmic scales")
        axes.set_ylabel(unit)
        if not linear:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        for formatted in (axes.xaxis, axes.yaxis):
            plain_numbers(formatted)
        for letter, points in lines.items():
            axes.plot(*zip(*points, strict=True), gid=f"run-{letter}", **looks[letter].line)
        if linear:
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)  # only now: before, it would keep the axis from growing with what is drawn
        label_ends(axes, [(letter, *points[-1]) for letter, points in lines.items()], looks)

    tips = {
        letter: [f"{letter}: {number(value)} {unit} at batch {batch:,}" for batch, value in points]
        for letter, points in lines.items()
    }
    return Panel(f"{title} against batch", draw, tips=tips)


def _able(run: Run) -> bool:
    return any(by_batch(run, metric) for metric in PANELS)


KIND = Kind("batch", "What do larger batches bring?", "figure by batch", each(_able), panels, answer.growth)
