"""Watts and joules per image while training."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.analysis.series import meters
from aggregate.render.figures import rows
from aggregate.render.figures.kind import Kind

METRICS = ("power", "energy_per_image")


def draw(runs: Sequence[Run]) -> Figure:
    """Power and energy of every repeat."""
    title = "Power and energy of the training, of what each meter covers: range and median of the repeats"
    return rows.draw(title, runs, METRICS)


KIND = Kind("energy", "Power and energy", "meter's figure", rows.have(*METRICS), draw, meters)
