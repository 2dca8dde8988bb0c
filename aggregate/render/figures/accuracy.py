"""Top-1 against time, energy and money."""

from collections.abc import Callable, Sequence
from typing import TypeGuard

import numpy as np
from matplotlib.axes import Axes

from aggregate.analysis.merging import Run
from aggregate.analysis.series import Curve, curves, drawable
from aggregate.render.figures.kind import Kind, Panel, each
from aggregate.render.figures.style import INK, Looks, far_apart, label_ends, plain_numbers
from aggregate.render.tables import number
from shared_spec.results.measurements import Convergence

MAX_SEEDS = 8
"""Trainings of one run that are drawn: more hide one another."""
Along = Callable[[Curve], np.ndarray | None]


def panels(runs: Sequence[Run], looks: Looks) -> list[Panel]:
    """A panel for time, for energy and for money, as far as any run knows them; a line a seed."""
    currency = runs[0].prices.unit
    axes: tuple[tuple[str, str, Along], ...] = (
        ("time", "minutes", lambda curve: curve.minutes),
        ("energy", "kJ", lambda curve: curve.kilojoules),
        ("money, rented (else owned)", currency, lambda curve: curve.cost),
    )
    made = []
    for what, unit, along in axes:
        lines = [(run, x, curve) for run in runs for curve in curves(run)[:MAX_SEEDS] if _known(x := along(curve))]
        if lines:
            made.append(_panel(f"Top-1 against {what}", unit, lines, looks))
    return made


def _known(x: np.ndarray | None) -> TypeGuard[np.ndarray]:
    return x is not None and drawable(x[np.isfinite(x)])


def _panel(title: str, unit: str, lines: Sequence[tuple[Run, np.ndarray, Curve]], looks: Looks) -> Panel:
    logarithmic = far_apart([float(np.nanmax(x)) for _, x, _ in lines])

    def draw(axes: Axes) -> None:
        axes.set_xlabel(f"{unit}, logarithmic scale" if logarithmic else unit)
        axes.set_ylabel("top-1 on all test images, %")
        target = 100 * lines[0][0].result.spec.training.target_top1
        axes.axhline(target, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(
            f"target {number(target, 3)} %", (0.01, target), (0, 2), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", size=8,
        )  # fmt: skip
        if logarithmic:
            axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        for run, x, curve in lines:
            axes.plot(x, curve.top1, gid=f"run-{run.letter}", **looks[run.letter].line)
        ends = {run.letter: (run.letter, float(x[-1]), float(curve.top1[-1])) for run, x, curve in lines}
        label_ends(axes, list(ends.values()), looks)

    tips: dict[str, list[str]] = {}
    for run, x, curve in lines:
        texts = (
            f"{run.letter}: {top1:.1f} % after {number(at, 3)} {unit}" for at, top1 in zip(x, curve.top1, strict=True)
        )
        tips.setdefault(run.letter, []).extend(texts)
    return Panel(title, draw, tips=tips)


def _able(run: Run) -> bool:
    return bool(run.measured(Convergence))


KIND = Kind("accuracy", "What does accuracy take?", "full training", each(_able), panels)
