"""Rental, owning and electricity of a full training."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.render.figures import rows
from aggregate.render.figures.kind import Kind

METRICS = ("cost_full", "owning_full", "electricity_full")


def draw(runs: Sequence[Run]) -> Figure:
    """Rental, owning and electricity of every seed."""
    return rows.draw("Cost of a full training: range and median of the seeds", runs, METRICS)


KIND = Kind("cost", "Cost", "cost of a full training", rows.have(*METRICS), draw)
