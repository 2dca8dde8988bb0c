"""Time and epochs to the target accuracy."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from aggregate.analysis.merging import Run
from aggregate.render.figures import rows
from aggregate.render.figures.kind import Kind, each
from shared_spec.results.measurements import Convergence


def draw(runs: Sequence[Run]) -> Figure:
    """Time and epochs of every seed."""
    title = "Time to target: the seeds and their median, one that misses counting as never"
    return rows.draw(title, runs, ("time_to_target", "epochs_to_target"))


def _able(run: Run) -> bool:
    return bool(run.measured(Convergence))


KIND = Kind("target", "Time to target", "full training", each(_able), draw)
