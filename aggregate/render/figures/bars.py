"""Bars: figures of runs, best first, each with its number beside it; on the page as HTML, in files drawn by matplotlib."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes

from aggregate.analysis import series
from aggregate.analysis.answer import Answer, Ranking, Standing
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import METRIC
from aggregate.render import words
from aggregate.render.figures.style import DIM, INK, colour_of, far_apart, name_of, plain_numbers
from aggregate.render.tables import shown


@dataclass(frozen=True)
class Bars:
    """Rankings on one axis.

    Attributes:
        title: what is shown.
        rankings: one below the other, each sorted, with what its figures cover.
        lacking: runs without a figure, and why.
        better: "more is better" or the like; empty where neither is.
    """

    title: str
    rankings: tuple[Ranking, ...]
    lacking: tuple[tuple[Run, str], ...]
    better: str

    @property
    def standings(self) -> list[Standing]:
        """All of them."""
        return [standing for ranking in self.rankings for standing in ranking.standings]

    @property
    def without(self) -> list[str]:
        """Who has no bar, by the reason: "I and K: no full training was run"."""
        by_reason: dict[str, list[str]] = {}
        for run, reason in self.lacking:
            by_reason.setdefault(words.why(reason), []).append(run.letter)
        runs = len({run.letter for run in [*(s.run for s in self.standings), *(run for run, _ in self.lacking)]})
        return [f"{words.whom(letters, runs)}: {reason}" for reason, letters in by_reason.items()]

    @property
    def unit(self) -> str:
        """Of the axis."""
        return next((standing.unit for standing in self.standings if standing.unit), "")

    @property
    def rows(self) -> int:
        """Lines that it takes, headings included."""
        return len(self.standings) + sum(bool(ranking.kind) for ranking in self.rankings)

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is."""
        return self._lowest > 0 and far_apart(self._values)

    @property
    def _values(self) -> list[float]:
        ends = [end for s in self.standings for end in (s.value, s.low, s.high) if math.isfinite(end)]
        return ends or [1.0]

    @property
    def _lowest(self) -> float:
        return min(self._values)

    @property
    def limits(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        high = max(self._values)
        if self.logarithmic:
            return 10.0 ** math.floor(math.log10(self._lowest) - 0.3), high
        return 0.0, high or 1.0

    def place(self, value: float) -> float:
        """Where a value stands on the axis, as a part of it from 0 to 1."""
        low, high = self.limits
        if self.logarithmic:
            return math.log10(max(value, low) / low) / math.log10(high / low)
        return value / high

    @property
    def ticks(self) -> list[float]:
        """Powers of ten on a logarithmic axis; a linear one needs none beside the numbers."""
        if not self.logarithmic:
            return []
        low, high = self.limits
        powers = (10.0**n for n in range(round(math.log10(low)), math.floor(math.log10(high)) + 1))
        return [power for power in powers if power <= high]


def of_answer(title: str, answer: Answer) -> Bars:
    """The figures behind an answer, without those that no axis can carry."""
    better = "more is better" if answer.question.more_is_better else "less is better"
    rankings, lacking = [], list(answer.unknown)
    for ranking in answer.rankings:
        able = tuple(standing for standing in ranking.standings if _drawable(standing))
        unable = [standing for standing in ranking.standings if not _drawable(standing)]
        lacking += [(standing.run, f"{standing.value:.3g}, which no axis can carry") for standing in unable]
        if able:
            rankings.append(Ranking(ranking.kind, able))
    return Bars(title, _in_words(rankings), tuple(lacking), better)


def _in_words(rankings: Iterable[Ranking]) -> tuple[Ranking, ...]:
    """What the figures cover as people say it, unless two then are called the same."""
    rankings = tuple(rankings)
    said = [words.covers(ranking.kind) for ranking in rankings]
    if len(set(said)) < len(said):
        return rankings
    return tuple(replace(ranking, kind=kind) for ranking, kind in zip(rankings, said, strict=True))


def _drawable(standing: Standing) -> bool:
    return series.drawable(np.array([standing.value]))


def value_of(standing: Standing) -> str:
    """The number beside a bar, without its unit."""
    return _shown(standing.value, standing)


def _shown(value: float, standing: Standing) -> str:
    if value == round(value) and METRIC[standing.metric].unit == "images":  # a count
        return f"{value:,.0f}"
    return shown(value, METRIC[standing.metric])


def range_of(standing: Standing) -> str:
    """Lowest to highest repeat in words; empty where there is one repeat, or all look alike."""
    if standing.repeats < 2 or not (math.isfinite(standing.low) and math.isfinite(standing.high)):
        return ""
    low, high = (_shown(end, standing) for end in (standing.low, standing.high))
    return f"{low} to {high}" if low != high else ""


def draw(bars: Bars, axes: Axes) -> None:
    """The bars from the top down, a heading above each ranking that has one."""
    low, high = bars.limits
    at, labels = 0, []
    for ranking in bars.rankings:
        if ranking.kind:
            axes.text(
                0, at + 0.3, ranking.kind, transform=axes.get_yaxis_transform(), size=8, style="italic", color=DIM
            )
            at += 1
        for standing in ranking.standings:
            _draw_one(bars, axes, standing, at)
            labels.append((at, name_of(standing.run)))
            at += 1
    axes.set_title(bars.title)
    axes.set_yticks([y for y, _ in labels], [text for _, text in labels])
    axes.set_ylim(max(at, 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    label = (bars.unit, bars.better, "logarithmic scale" if bars.logarithmic else "")
    axes.set_xlabel(", ".join(filter(None, label)))
    if bars.logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(low, high * (high / low) ** 0.25)
    else:
        axes.set_xlim(0, high * 1.3)
    plain_numbers(axes.xaxis)


def _draw_one(bars: Bars, axes: Axes, standing: Standing, at: int) -> None:
    low, high = bars.limits
    axes.barh(at, standing.value - low, left=low, height=0.6, color=colour_of(standing.run))
    if spread := range_of(standing):
        axes.plot([standing.low, standing.high], [at, at], color=INK, marker="|", markersize=7, linewidth=1.2)
        spread = f"  ({spread})"
    end = max(filter(math.isfinite, (standing.value, standing.high)), default=high)
    text = f"{value_of(standing)}{spread}"
    axes.annotate(text, (end, at), (5, 0), textcoords="offset points", va="center", size=8)


def of_metric(
    title: str, by_kind: dict[str, list[Standing]], better: int, lacking: Sequence[tuple[Run, str]] = ()
) -> Bars:
    """The figures of a metric that belongs to no question, sorted.

    Args:
        title: what is shown.
        by_kind: of the runs that have it, by what they cover.
        better: +1 where more is better, -1 where less is, 0 where neither is.
        lacking: runs without a bar, and why.
    """
    rankings = _in_words(
        Ranking(kind, tuple(sorted(found, key=lambda s: (-s.value if better > 0 else s.value, s.run.letter))))
        for kind, found in by_kind.items()
    )
    return Bars(title, rankings, tuple(lacking), ("", "more is better", "less is better")[better])
