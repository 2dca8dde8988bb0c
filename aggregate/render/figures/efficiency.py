"""Share of the measured matrix-product rate that training reaches."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.render.figures import rows
from aggregate.render.figures.kind import Kind


def draw(runs: Sequence[Run]) -> Figure:
    """Efficiency of every repeat, and the rate that it is a share of."""
    return rows.draw("Training against the device's own matrix products", runs, ("efficiency", "ceiling"))


KIND = Kind("efficiency", "Efficiency", "efficiency", rows.have("efficiency"), draw)
