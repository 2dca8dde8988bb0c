"""The plots: one style, colours of Okabe and Ito with a marker and a hatch for each platform, readable in grey."""

import io
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from aggregate import metrics
from aggregate.compare import Run, Section, TraceKey, Traces, letters, merged, relative_difference, traces
from aggregate.metrics import METRIC
from aggregate.scaling import Scaling, scalings
from aggregate.tables import number, shown

STYLE: Any = {  # what rc_context takes is a literal type of 300 names
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a device name is a $
    "svg.hashsalt": "deit-bench",  # the same figure gives the same file
}
# Okabe and Ito, Color Universal Design (2008), without the yellow that is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
PLATFORM = {
    "mlx": ("#0072B2", "o", "///"),
    "tf-cuda": ("#D55E00", "s", "\\\\\\"),
    "torch-ipex": ("#009E73", "D", "..."),
}
"""Colour, marker and hatch."""
WIDTH = 10.0
MAX_RUNS = 40
"""More lines than this no plot can show legibly."""
MAX_POINTS = 200
MAX_SEEDS = 8
"""Blocks, and trainings, of one run that are drawn: more hide one another, and take an SVG file megabytes."""
LOG_FROM = 8.0
"""Values further apart than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Plot:
    """A plot as files.

    Attributes:
        name: stem of the file names.
        alt: what it shows, in words.
        png, svg: empty where there is nothing to show.
        missing: what is not in it and why.
        notes: what to know when reading it, a sentence each.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: bytes
    missing: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """Where a run is drawn: axes of its values, axes of their spread, and its y in both."""

    values: Axes
    spread: Axes
    y: int


def _name(run: Run) -> str:
    """What ran, on one line; the precision is said by the panel or the legend."""
    c = run.content
    words = dict.fromkeys([c["platform"], c["engine"]] + ["synthetic data"] * (c["data"]["source"] == "synthetic"))
    return _shorten(" · ".join(filter(None, (*words, run.ranks.words))), 44)


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def _panels(title: str, runs: Sequence[Run]) -> tuple[Figure, dict[str, Line]]:
    """A figure with one labelled line per run and one panel per precision: values on the left, spread on the right.

    Returns:
        The figure, and the Line of each run by its letter.
    """
    by_precision = {p: [run for run in runs if run.content["precision"] == p] for p in ("fp32", "bf16")}
    panels = {precision: members for precision, members in by_precision.items() if members}
    heights = [len(members) + 0.2 for members in panels.values()]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.35 * len(panels) + 0.48 * sum(heights)))
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=11)
    grid = figure.subplots(len(panels), 2, sharex="col", squeeze=False, height_ratios=heights, width_ratios=(3, 2))
    lines: dict[str, Line] = {}
    for (values, spread), (precision, members) in zip(grid, panels.items(), strict=True):
        labels = [f"{run.letter}   {_name(run)}\n{_shorten(run.hardware.short, 40)}" for run in members]
        values.set_title(precision)
        values.set_yticks(range(len(members)), labels, linespacing=1.25)
        spread.set_yticks([])
        for axes in (values, spread):
            axes.set_ylim(len(members) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            _plain_numbers(axes.xaxis)
        lines |= {run.letter: Line(values, spread, y) for y, run in enumerate(members)}
    return figure, lines


def _label_below(figure: Figure, values: str, spread: str) -> None:
    figure.axes[-2].set_xlabel(values)
    figure.axes[-1].set_xlabel(f"{spread}\noutliers are drawn at the edge")


def _plain_numbers(axis: Axis) -> None:
    """Ticks as plain numbers; a logarithm over less than two decades has more, and still more over less than one."""

    def between(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        digits = "23457" if high < 10 * low else "25" if high < 100 * low else ""
        return f"{value:,.12g}" if f"{value:.0e}"[0] in digits else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(FuncFormatter(between))


def _scale(figure: Figure, every: np.ndarray, unit: str) -> str:
    """Scale the axis of values from 0, or as a logarithm where they lie far apart; returns its label."""
    axes, low, high = figure.axes[-2], every.min(), every.max()
    if high <= LOG_FROM * low:
        axes.set_xlim(0, high * 1.05)
        return unit
    for panel in figure.axes[::2]:  # the scale is shared, but brings formatters of its own
        panel.set_xscale("log")
        _plain_numbers(panel.xaxis)
    axes.set_xlim(low / 1.2, high * 1.2)
    return f"{unit}, logarithmic"


def _spread_limits(relative: np.ndarray) -> tuple[float, float]:
    """Limits in % that hold all but the outermost of the values; at least 1 % to either side."""
    low, high = np.percentile(relative, (0.5, 99.5))
    return min(-1.0, 1.1 * low), max(1.0, 1.1 * high)


def _beside(line: Line, text: str) -> None:
    """Write to the right of a run's line."""
    line.spread.text(
        1.02, line.y, text, transform=line.spread.get_yaxis_transform(), va="center", size=8, linespacing=1.25
    )


def _block_rates(run: Run) -> np.ndarray:
    return np.array([rate for measured in run.measured("training") for rate in metrics.block_rates(measured)])


def _latencies(run: Run) -> np.ndarray:
    """All samples of all repeats, ms."""
    return 1e3 * np.array([t for measured in run.measured("latency") for t in measured["host_to_host_seconds"]])


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _jitter(n: int) -> np.ndarray:
    """Vertical offsets that keep points of one line apart, the same at every call (golden-ratio sequence)."""
    return ((np.arange(n) * 0.6180339887) % 1 - 0.5) * 0.5


def throughput(runs: Sequence[Run]) -> Figure:
    """Training images/s: the median and range of the repeats, and how far every block is from that median."""
    repeats = {
        run.letter: [m["batch_size"] * metrics.step_rate(m["window_blocks"]) for m in run.measured("training")]
        for run in runs
    }
    middle = {letter: float(np.median(values)) for letter, values in repeats.items()}
    relative = {run.letter: 100 * (_block_rates(run) / middle[run.letter] - 1) for run in runs}
    figure, lines = _panels(f"Training throughput at batch {runs[0].result.spec.training.batch_size:,}", runs)
    limits = _spread_limits(np.concatenate(list(relative.values())))
    unit = _scale(figure, np.concatenate([*repeats.values()]), "images/s")
    _label_below(figure, f"median and range of the repeats\n{unit}", "blocks against the median, %")
    for run in runs:
        line, several = lines[run.letter], repeats[run.letter]
        colour, marker, _ = PLATFORM[run.content["platform"]]
        if len(several) > 1:
            ends = [min(several), max(several)]
            line.values.plot(ends, [line.y] * 2, color="black", linewidth=1.5, marker="|", markersize=12)
        line.values.plot([middle[run.letter]], [line.y], marker, color=colour, markeredgecolor="black", markersize=8)
        blocks = relative[run.letter]
        points = blocks[:: -(-len(blocks) // MAX_POINTS)].clip(*limits)
        line.spread.axvline(0, color="black", linewidth=0.6)
        heights = line.y + _jitter(len(points))
        line.spread.scatter(points, heights, s=9, marker=marker, color=colour, alpha=0.5, linewidths=0, clip_on=False)
        line.spread.set_xlim(*limits)
        behind = f"{_count(len(several), 'repeat')}, {_count(len(blocks), 'block')}"
        _beside(line, f"{number(middle[run.letter])} images/s\n{behind}")
    return figure


def latency(runs: Sequence[Run]) -> Figure:
    """Batch-1 latency: median and p90 in ms, and the distribution of all samples around the median."""
    samples = {run.letter: _latencies(run) for run in runs}
    each = {
        run.letter: [np.percentile(m["host_to_host_seconds"], (50, 90)) for m in run.measured("latency")]
        for run in runs
    }
    quantiles = {letter: 1e3 * np.median(repeats, axis=0) for letter, repeats in each.items()}  # as in the table
    relative = {run.letter: 100 * (samples[run.letter] / quantiles[run.letter][0] - 1) for run in runs}
    figure, lines = _panels("Latency at batch 1, image in host memory to logits in host memory", runs)
    limits = _spread_limits(np.concatenate(list(relative.values())))
    unit = _scale(figure, np.concatenate([*quantiles.values()]), "ms")
    _label_below(figure, f"median (symbol) to p90 (bar)\n{unit}", "samples against the median, %")
    for run in runs:
        line, (median, p90) = lines[run.letter], quantiles[run.letter]
        colour, marker, hatch = PLATFORM[run.content["platform"]]
        line.values.plot([median, p90], [line.y] * 2, color="black", linewidth=1.5)
        line.values.plot([p90], [line.y], "|", color="black", markersize=12, markeredgewidth=2)
        line.values.plot([median], [line.y], marker, color=colour, markeredgecolor="black", markersize=7)
        counts, edges = np.histogram(relative[run.letter].clip(*limits), np.linspace(*limits, 81))
        base = line.y + 0.35
        line.spread.stairs(
            base - 0.8 * counts / counts.max(), edges, baseline=base, fill=True, alpha=0.6, color=colour, hatch=hatch
        )
        line.spread.axvline(0, color="black", linewidth=0.6)
        line.spread.set_xlim(*limits)
        _beside(line, f"median {number(median)} ms, p90 {number(p90)} ms\nn = {len(samples[run.letter]):,}")
    return figure


def loss(runs: Sequence[Run]) -> Figure:
    """Losses of the first steps laid over each other, and how far each is from the first run's."""
    groups = _one_seed_each(traces(runs))
    figure = Figure(figsize=(WIDTH, 0.6 + sum(2.9 + 0.16 * len(t) for t in groups.values())))
    figure.suptitle("Loss of the first training steps", x=0.01, ha="left", weight="bold", size=11)
    parts = figure.subfigures(len(groups), squeeze=False, height_ratios=[2.9 + 0.16 * len(t) for t in groups.values()])
    styles = {run.letter: _style(run) for run in runs}
    names = {run.letter: _legend(run) for run in runs}
    for part, (key, of_run) in zip(parts.flat, groups.items(), strict=True):
        left, right = part.subplots(1, 2) if len(of_run) > 1 else (part.subplots(), None)
        left.set_title(f"{key.data[0]}, batch {key.batch_size:,}, seed {key.seed}")
        left.set_xlabel("step")
        left.set_ylabel("cross-entropy")
        for letter, losses in of_run.items():
            left.plot(np.arange(1, len(losses) + 1), losses, label=names[letter], **styles[letter])
        if right is not None:
            _partings(right, of_run, styles)
        part.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8, handlelength=4)
    return figure


def _partings(axes: Axes, of_run: dict[str, np.ndarray], styles: dict[str, Any]) -> None:
    """How far each trace has been from the first one at most up to a step; what is equal so far is not drawn."""
    (reference, first), *others = of_run.items()
    axes.set_title(f"largest relative difference from {reference} so far")
    axes.set_xlabel("step")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    so_far = {letter: np.fmax.accumulate(relative_difference(losses, first)) for letter, losses in others}
    apart = np.concatenate([values[values > 0] for values in so_far.values()])
    if not len(apart):
        axes.text(0.5, 0.5, "all are equal", transform=axes.transAxes, ha="center")
        return
    axes.set_ylim(10 ** np.floor(np.log10(apart.min())), 10 ** np.ceil(np.log10(apart.max()) + 0.05))
    for letter, values in so_far.items():
        axes.plot(np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan), **styles[letter])


def _one_seed_each(found: Traces) -> Traces:
    """Of the seeds of the same data, initial values and batch, the one that most runs share; the lowest of several."""
    chosen: dict[tuple[Any, ...], TraceKey] = {}
    for key in sorted(found, key=lambda key: (-len(found[key]), key.seed)):
        chosen.setdefault((key.data, key.initial_params, key.batch_size), key)
    return {key: found[key] for key in chosen.values()}


def _style(run: Run) -> dict[str, Any]:
    """The line of a run, the same in all plots."""
    return _line_style(next(i for i, letter in enumerate(letters()) if letter == run.letter))


def _line_style(i: int) -> dict[str, Any]:
    """Seven colours; colour, line and marker change together so that each is told apart without the others."""
    markers = "osD^vPX"
    return {
        "color": COLOURS[i % 7], "linestyle": LINES[(i + 2 * (i // 7)) % 4], "marker": markers[i % 7],
        "markevery": (3 * (i % 5), 15), "markersize": 4, "linewidth": 1.1,
    }  # fmt: skip


@dataclass(frozen=True)
class Repeats:
    """One metric of a run, its repeats merged as in the tables.

    Attributes:
        values: of the repeats that have one an axis can carry.
        middle: median of all, one that never comes counting as longer than any other; NaN where it has no value.
        words: the median and how many repeats are behind it, or why there is none.
    """

    values: np.ndarray
    middle: float
    words: str


def _repeats(run: Run, metric: str) -> Repeats:
    figures = run.figures.get((metric, None), [])
    values = np.array([figure.value for figure in figures if not figure.reason])
    if not _drawable(values):
        return Repeats(np.array([]), math.nan, "not reached" if any(f.never for f in figures) else "not known")
    middle = merged(figures)["value"]
    missed = sum(figure.never for figure in figures)
    n = f"n = {len(values)}" + f" of {len(values) + missed}" * bool(missed)
    median = "median: never" if math.isnan(middle) else shown(middle, METRIC[metric])
    return Repeats(values, middle, f"{median}  ({n})")


def _has(*wanted: str) -> Callable[[Sequence[Run]], list[Run]]:
    return lambda runs: [run for run in runs if any(len(_repeats(run, metric).values) for metric in wanted)]


def _rows(title: str, runs: Sequence[Run], wanted: Sequence[str]) -> Figure:
    """A line per run and a panel per metric: every repeat, and the median of all."""
    figure = Figure(figsize=(WIDTH, 1.0 + 0.48 * len(runs)))
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=11)
    labels = [f"{run.letter}   {_name(run)}\n{_shorten(run.hardware.short, 40)}" for run in runs]
    panels = figure.subplots(1, len(wanted), squeeze=False)[0]
    for axes, metric in zip(panels, wanted, strict=True):
        axes.set_yticks(range(len(runs)), labels if axes is panels[0] else [""] * len(runs), linespacing=1.25)
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        _row_values(axes, runs, metric)
    return figure


def _row_values(axes: Axes, runs: Sequence[Run], metric: str) -> None:
    of_run = [_repeats(run, metric) for run in runs]
    present = np.concatenate([repeats.values for repeats in of_run])
    unit = next((f.unit for run in runs for f in run.figures.get((metric, None), []) if f.unit), METRIC[metric].unit)
    logarithmic = bool(len(present) and present.max() > LOG_FROM * present.min())
    axes.set_xlabel(", ".join(filter(None, (METRIC[metric].title.strip(), unit, "logarithmic" * logarithmic))))
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(present.min() / 1.5, present.max() * 4)
    elif len(present):
        axes.set_xlim(0, present.max() * 1.5)
    else:
        axes.set_xticks([])
    _plain_numbers(axes.xaxis)
    for y, (run, repeats) in enumerate(zip(runs, of_run, strict=True)):
        if not len(repeats.values):
            axes.text(0.02, y, repeats.words, transform=axes.get_yaxis_transform(), va="center", size=8, style="italic")
            continue
        colour, marker, _ = PLATFORM[run.content["platform"]]
        low, high = repeats.values.min(), repeats.values.max()
        axes.plot([low, high], [y, y], color="black", linewidth=1.5, marker="|", markersize=10)
        axes.plot([repeats.middle], [y], marker, color=colour, markeredgecolor="black", markersize=8)
        axes.annotate(repeats.words, (high, y), (8, 0), textcoords="offset points", va="center", size=8)


def target(runs: Sequence[Run]) -> Figure:
    """Time and epochs to the target."""
    return _rows(
        "Time to target: the seeds and their median, one that misses counting as never",
        runs,
        ("time_to_target", "epochs_to_target"),
    )


def energy(runs: Sequence[Run]) -> Figure:
    """Watts and joules per image while training."""
    return _rows(
        "Power and energy of the training, of what each meter covers: range and median of the repeats",
        runs, ("power", "energy_per_image"),
    )  # fmt: skip


def cost(runs: Sequence[Run]) -> Figure:
    """Rental and electricity of a full training."""
    return _rows("Cost of a full training: range and median of the seeds", runs, ("cost_full", "electricity_full"))


def efficiency(runs: Sequence[Run]) -> Figure:
    """Share of the measured matrix-product rate that training reaches."""
    return _rows("Training against the device's own matrix products", runs, ("efficiency", "ceiling"))


BY_BATCH = {
    "batch_throughput": "training, images/s",
    "batch_memory": "training, peak memory, GiB",
    "inference_throughput": "inference, images/s",
}


def batch(runs: Sequence[Run]) -> Figure:
    """Throughput and memory against the batch size, training and inference, each where any run has it."""
    shown = [metric for metric in BY_BATCH if any(_by_batch(run, metric) for run in runs)]
    figure = Figure(figsize=(WIDTH, 3.6 + 0.16 * len(runs)))
    figure.suptitle("Throughput and memory against batch size", x=0.01, ha="left", weight="bold", size=11)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, metric in zip(panels, shown, strict=True):
        axes.set_title(BY_BATCH[metric])
        if metric == "batch_memory":  # what grows in proportion is a straight line only on linear axes
            axes.set_xlabel("batch size")
        else:
            axes.set_xlabel("batch size, logarithmic")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        for formatted in (axes.xaxis, axes.yaxis):
            _plain_numbers(formatted)
        for run in runs:
            points = _by_batch(run, metric)
            style = {**_style(run), "markevery": None}
            axes.plot([b for b, _ in points], [v for _, v in points], label=_legend(run), **style)
        if metric == "batch_memory":
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)  # only now: before, it would keep the axis from growing with what is drawn
    _legend_below(figure, panels[0])
    return figure


def _by_batch(run: Run, metric: str) -> list[tuple[int, float]]:
    """(batch, median of the repeats) in the order of the batches."""
    found = []
    for (key, size), figures in run.figures.items():
        values = np.array([figure.value for figure in figures if not figure.reason])
        if key == metric and size is not None and _drawable(values):
            found.append((size, float(np.median(values))))
    return sorted(found)


def growth(run: Run) -> list[str]:
    """How memory and time grow with the batch, and from where on they grow faster than it."""
    return [
        *_memory_growth(_by_batch(run, "batch_memory")),
        *_slower("training", _by_batch(run, "batch_throughput")),
        *_slower("inference", _by_batch(run, "inference_throughput")),
    ]


STEEPER = 1.25
"""Memory for another image, from one batch to the next, above this multiple of what it was at first, is no longer
linear; allocators round, so that less says nothing."""
SLOWER = 1.05
"""An image that takes this much longer than in a smaller batch: time grows faster than the batch."""


def _memory_growth(points: Sequence[tuple[int, float]]) -> list[str]:
    if len(points) < 2:
        return []
    (first, least), (last, most) = points[0], points[-1]
    each = 1024 * (most - least) / (last - first)
    said = f"from batch {first:,} to {last:,} the peak memory grows by {number(each, 3)} MiB an image"
    slopes = [(m - k) / (b - a) for (a, k), (b, m) in itertools.pairwise(points)]
    steep = [points[i][0] for i, slope in enumerate(slopes) if slope > STEEPER * max(slopes[0], 0) and slope > 0]
    return [f"{said}, and more steeply from batch {steep[0]:,} on" if steep else said]


def _slower(what: str, points: Sequence[tuple[int, float]]) -> list[str]:
    """The first batch at which an image takes longer than it did in a smaller one."""
    best, best_at = 0.0, 0
    for size, rate in points:
        if rate * SLOWER < best:
            took = f"an image takes {best / rate:.2f} times as long as at batch {best_at:,}"
            return [f"{what} time grows faster than the batch at {size:,}: {took}"]
        if rate > best:
            best, best_at = rate, size
    return []


def _meters(run: Run) -> list[str]:
    """Which meter the figures are from: those of different ones do not compare."""
    energies = [measured["energy"] for measured in run.measured("training")]
    return list(dict.fromkeys(metrics.meter(energy) for energy in energies if energy["joules"] is not None))


def _legend(run: Run) -> str:
    return f"{run.letter}   {_name(run)} · {run.content['precision']} · {_shorten(run.hardware.short, 40)}"


def _legend_below(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8, handlelength=4)


def accuracy(runs: Sequence[Run]) -> Figure:
    """Top-1 against time, energy and rental, a line per seed."""
    figure = Figure(figsize=(WIDTH, 3.6 + 0.16 * len(runs)))
    figure.suptitle(
        f"Accuracy on all test images, a line per seed (of a run's first {MAX_SEEDS})",
        x=0.01,
        ha="left",
        weight="bold",
        size=11,
    )
    panels = figure.subplots(1, 3, sharey=True)
    currency = runs[0].prices.currency
    for axes, label in zip(panels, ("time, min", "energy, kJ", f"rental, {currency}"), strict=True):
        axes.set_xlabel(label)
        axes.axhline(100 * runs[0].result.spec.training.target_top1, color="black", linewidth=0.8, linestyle=":")
    panels[0].set_ylabel("top-1, % (dotted: target)")
    for run in runs:
        rental = run.prices.rental(run.hardware.model, run.hardware.cores)
        for seed, measured in enumerate(run.measured("convergence")[:MAX_SEEDS]):
            style = {**_style(run), "markevery": None, "label": _legend(run) if seed == 0 else None}
            top1 = [100 * epoch["top1"] for epoch in measured["epochs"]]
            seconds = np.array([epoch["seconds"] for epoch in measured["epochs"]])
            joules = np.array([epoch["joules"] for epoch in measured["epochs"]], dtype=float)
            panels[0].plot(seconds / 60, top1, **style)
            panels[1].plot(joules / 1e3, top1, **style)
            if rental:
                panels[2].plot(rental.per_hour * seconds / 3600, top1, **style)
    for axes in panels:
        _log_where_far_apart(axes)
    _legend_below(figure, panels[0])
    return figure


def _log_where_far_apart(axes: Axes) -> None:
    """A logarithmic axis where the lines end far apart; a word where there is none but the target's."""
    ends = [float(np.nanmax(line.get_xdata())) for line in axes.lines[1:] if np.isfinite(line.get_xdata()).any()]
    if not ends:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", style="italic")
        axes.set_xticks([])
    elif _drawable(np.array(ends)) and max(ends) > LOG_FROM * min(ends):
        axes.set_xscale("log")
        axes.set_xlabel(f"{axes.get_xlabel()}, logarithmic")
    _plain_numbers(axes.xaxis)


def _drawn_scalings(runs: Sequence[Run]) -> list[Scaling]:
    """Those with an efficiency that an axis can carry."""
    found = [(each, np.array([point.efficiency[0] for point in each.points])) for each in scalings(runs)]
    return [each for each, efficiencies in found if _drawable(efficiencies)]


def _scaled(runs: Sequence[Run]) -> list[Run]:
    """Those trained by several ranks, and by one process to compare with."""
    shown = [run for each in _drawn_scalings(runs) for run in (each.alone, *each.runs)]
    return [run for run in runs if run in shown]


def scaling(runs: Sequence[Run]) -> Figure:
    """Efficiency against the number of ranks, with its interval; a line per thing and kind of scaling."""
    found = _drawn_scalings(runs)
    figure = Figure(figsize=(WIDTH, 3.6 + 0.16 * len(found)))
    figure.suptitle("Scaling efficiency with its 95 % interval", x=0.01, ha="left", weight="bold", size=11)
    axes = figure.subplots()
    axes.set_xlabel("ranks, logarithmic")
    axes.set_ylabel("% of N times one process")
    axes.set_xscale("log", base=2)
    sizes = sorted({1} | {run.ranks.size for each in found for run in each.runs})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axhline(100, color="black", linewidth=0.8, linestyle=":")
    for i, each in enumerate(found):
        style = {**_line_style(i), "markevery": None}
        middle, low, high = (np.array(ends) for ends in zip(*(point.efficiency for point in each.points), strict=True))
        ranks = [run.ranks.size for run in each.runs]
        letters = ", ".join(run.letter for run in each.runs)
        label = f"{letters} against {_legend(each.alone)}, {each.kind}"
        axes.plot([1, *ranks], 100 * np.array([1.0, *middle]), label=label, **style)
        spread = 100 * np.nan_to_num(np.array([middle - low, high - middle]))
        axes.errorbar(ranks, 100 * middle, spread.clip(0), fmt="none", ecolor=style["color"], capsize=4)
    axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", fontsize=8, handlelength=4)
    return figure


@dataclass(frozen=True)
class Kind:
    """A kind of plot: stem of its file names, title, which runs have something to show in it, what draws those.

    Attributes:
        what: what a run needs to be in it.
        able: of the runs of a section, those that have it.
        says: sentences that belong below it, of one run.
    """

    stem: str
    title: str
    what: str
    able: Callable[[Sequence[Run]], list[Run]]
    draw: Callable[[Sequence[Run]], Figure]
    says: Callable[[Run], list[str]] = lambda run: []


def _each(shows: Callable[[Run], bool]) -> Callable[[Sequence[Run]], list[Run]]:
    return lambda runs: [run for run in runs if shows(run)]


KINDS = (
    Kind("throughput", "Training throughput", "training window", _each(lambda run: _drawable(_block_rates(run))), throughput),
    Kind("latency", "Latency distribution", "set of latency samples", _each(lambda run: _drawable(_latencies(run))), latency),
    Kind("batch", "Throughput and memory against batch", "figure by batch",
         _each(lambda run: any(_by_batch(run, metric) for metric in BY_BATCH)), batch, growth),
    Kind("accuracy", "Accuracy against time, energy and cost", "full training",
         _each(lambda run: bool(run.measured("convergence"))), accuracy),
    Kind("target", "Time to target", "full training", _each(lambda run: bool(run.measured("convergence"))), target),
    Kind("energy", "Power and energy", "meter's figure", _has("power", "energy_per_image"), energy, _meters),
    Kind("cost", "Cost", "cost of a full training", _has("cost_full", "electricity_full"), cost),
    Kind("efficiency", "Efficiency", "efficiency", _has("efficiency"), efficiency),
    Kind("loss", "Loss traces", "loss trace", _each(lambda run: bool(traces([run]))), loss),
    Kind("scaling", "Scaling efficiency", "training by several ranks, and by one to compare with", _scaled, scaling),
)  # fmt: skip


def _drawable(values: np.ndarray) -> bool:
    """Whether an axis can carry these values; a file can hold any that a float can."""
    return bool(len(values) and values.min() > 1e-9 and values.max() < 1e12)


def _files(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as PNG and SVG, with nothing of the day or the machine in them."""
    png, svg = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # A device may be named in any script, the fonts at hand may not have it; a box stands for the letter then.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.set_layout_engine("none")  # laid out once is enough
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue()


def draw(section: Section) -> list[Plot]:
    """All plots of a section; one with nothing to show says why instead."""
    with mpl.rc_context(STYLE):
        return [_draw(kind, section) for kind in KINDS]


def _draw(kind: Kind, section: Section) -> Plot:
    name = kind.stem + section.slug
    able = kind.able(section.runs)
    if not able:
        return Plot(name, kind.title, "", b"", b"", f"No plot: no run here has a {kind.what} to show.")
    shown, missing = able[:MAX_RUNS], []
    if lacking := [run.letter for run in section.runs if run not in able]:
        missing.append(f"Not in the plot, for want of a {kind.what} to show: {', '.join(lacking)}.")
    if len(able) > MAX_RUNS:
        missing.append(f"The first {MAX_RUNS} of {len(able):,} runs are drawn.")
    names = ", ".join(f"{run.letter} ({_name(run)} · {run.content['precision']})" for run in shown)
    said = tuple(f"{run.letter}: {text}." for run in shown for text in kind.says(run))
    return Plot(name, kind.title, f"{kind.title} of {names}", *_files(kind.draw(shown)), " ".join(missing), said)
