"""Losses of the first training steps, laid over each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from aggregate.analysis.losses import one_seed_each, relative_difference, traces
from aggregate.analysis.merging import Run
from aggregate.render.figures.kind import Kind, Panel, each
from aggregate.render.figures.style import Looks, label_ends, powers_of_ten

MARK_EVERY = 15
"""Steps: a marker at each would hide the lines."""


def panels(runs: Sequence[Run], looks: Looks) -> list[Panel]:
    """Losses of the first steps laid over each other, and how far each is from the first run's."""
    made = []
    for key, of_run in one_seed_each(traces(runs)).items():
        made.append(_traces(f"Loss: {key.data[0]}, batch {key.batch_size:,}, seed {key.seed}", of_run, looks))
        if len(of_run) > 1:
            made.append(_divergence(of_run, looks))
    return made


def _traces(title: str, of_run: dict[str, np.ndarray], looks: Looks) -> Panel:
    def draw(axes: Axes) -> None:
        axes.set_xlabel("step")
        axes.set_ylabel("cross-entropy")
        for letter, losses in of_run.items():
            _line(axes, letter, losses, looks)

    return Panel(title, draw)


def _line(axes: Axes, letter: str, values: np.ndarray, looks: Looks) -> None:
    steps = np.arange(1, len(values) + 1)
    axes.plot(steps, values, gid=f"run-{letter}", **looks[letter].line, markevery=MARK_EVERY)


def _divergence(of_run: dict[str, np.ndarray], looks: Looks) -> Panel:
    """How far each trace has been from the first one at most up to a step; what is equal so far is not drawn."""
    (reference, first), *others = of_run.items()
    so_far = {letter: np.fmax.accumulate(relative_difference(losses, first)) for letter, losses in others}
    apart = np.concatenate([values[values > 0] for values in so_far.values()])

    def draw(axes: Axes) -> None:
        axes.set_xlabel("step")
        axes.set_ylabel("logarithmic scale")
        axes.set_yscale("log")
        powers_of_ten(axes.yaxis)
        if not len(apart):
            axes.text(0.5, 0.5, "all are equal", transform=axes.transAxes, ha="center")
            return
        axes.set_ylim(10 ** np.floor(np.log10(apart.min())), 10 ** np.ceil(np.log10(apart.max()) + 0.05))
        for letter, values in so_far.items():
            _line(axes, letter, np.where(values > 0, values, np.nan), looks)
        ends = [(letter, float(len(values)), float(values[-1])) for letter, values in so_far.items() if values[-1] > 0]
        label_ends(axes, ends, looks)

    return Panel(f"Largest relative difference from {reference} so far", draw)


def _able(run: Run) -> bool:
    return bool(traces([run]))


KIND = Kind("loss", "Do they learn alike?", "loss trace", each(_able), panels, details=True)
