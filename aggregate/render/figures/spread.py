"""How even a run is: every single latency, and every block of training, against the median."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from aggregate.analysis import series
from aggregate.analysis.merging import Run
from aggregate.render.figures.kind import Kind, Panel, each
from aggregate.render.figures.style import DIM, Looks, name_of

BINS = 60


def panels(runs: Sequence[Run], looks: Looks) -> list[Panel]:
    """A panel for the latencies and one for the blocks, with a distribution for each run."""
    made = []
    for title, samples in (
        ("Single latencies against their median", series.latencies),
        ("Blocks of training against their median", series.block_rates),
    ):
        able = [run for run in runs if series.drawable(samples(run))]
        if able:
            made.append(_panel(title, able, samples, looks))
    return made


def _panel(title: str, runs: Sequence[Run], samples: Callable[[Run], np.ndarray], looks: Looks) -> Panel:
    relative = [_against_median(samples(run)) for run in runs]
    low, high = _limits(np.concatenate(relative))

    def draw(axes: Axes) -> None:
        for row, (run, values) in enumerate(zip(runs, relative, strict=True)):
            counts, edges = np.histogram(values.clip(low, high), np.linspace(low, high, BINS + 1))
            base = row + 0.45
            axes.stairs(
                base - 0.55 * counts / counts.max(), edges, baseline=base, fill=True, color=looks[run.letter].colour,
                gid=f"run-{run.letter}",
            )  # fmt: skip
            label = f"{name_of(run)}, n = {len(values):,}"
            axes.text(0, row - 0.22, label, transform=axes.get_yaxis_transform(), size=8)
        axes.axvline(0, color=DIM, linewidth=0.8)
        axes.set_xlim(low, high)
        axes.set_ylim(len(relative) - 0.45, -0.6)
        axes.set_yticks([])
        axes.set_xlabel("% of the median; what lies outside is drawn at the edge")

    return Panel(title, draw, rows=len(relative))


def _against_median(values: np.ndarray) -> np.ndarray:
    """Per cent."""
    return np.asarray(100 * (values / np.median(values) - 1))


def _limits(relative: np.ndarray) -> tuple[float, float]:
    """Limits in % that hold all but the outermost of the values; at least 1 % to either side."""
    low, high = np.percentile(relative, (0.5, 99.5))
    return min(-1.0, 1.1 * low), max(1.0, 1.1 * high)


def _able(run: Run) -> bool:
    return series.drawable(series.latencies(run)) or series.drawable(series.block_rates(run))


KIND = Kind("latency", "How even is it?", "set of samples", each(_able), panels)
