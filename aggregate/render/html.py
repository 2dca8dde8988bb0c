"""The report as one self-contained HTML page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from aggregate.analysis import ratios, scaling
from aggregate.analysis.answer import Standing
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import METRICS
from aggregate.analysis.sections import Section
from aggregate.render import answer, outline, systems, words
from aggregate.render.figures.bars import Bars, range_of, value_of
from aggregate.render.figures.kind import Image, Plot
from aggregate.render.tables import Table, number

FOLD_FROM = 12
"""Bars of one ranking that are shown before the rest is folded away."""
FILTER_FROM = 3
"""Runs from which on there is something to filter."""
MANY = 12
"""Runs from which on the filter stands open."""
AGAINST = re.compile(r"([\d.,e+-]+) (%|times) (faster|slower)")
"""A ratio as the tables say it."""
BETTER = {1: "more", -1: "less", 0: ""}
"""Which end of a metric is best, as the page's script knows it."""
FACETS = ("platform", "device", "precision", "profile")
"""What runs are filtered by."""


@dataclass(frozen=True)
class Part:
    """All that the page shows of a section.

    Attributes:
        section: its runs.
        sentences: the answer.
        remarks: what is said of the section besides.
        headline: the six metrics.
        subtables: ratios, scaling, and what is shared.
        phases: a table each.
        plots: its charts, those with nothing to show too.
        divergences: how far losses are apart, a sentence a pair.
        among: said before these, where not all are listed.
    """

    section: Section
    sentences: list[str]
    remarks: list[str]
    headline: Table
    subtables: list[Table]
    phases: list[Table]
    plots: Sequence[Plot]
    divergences: list[str]
    among: str

    @property
    def charts(self) -> list[Plot]:
        """For every reader."""
        return [plot for plot in self.plots if plot.panels and not plot.details]

    @property
    def charts_for_sceptics(self) -> list[Plot]:
        """For those who want to know more."""
        return [plot for plot in self.plots if plot.panels and plot.details]

    @property
    def absent(self) -> list[str]:
        """The charts with nothing to show, and why."""
        return [f"{plot.title} {plot.missing}" for plot in self.plots if not plot.panels]


def page(comparison: Comparison, title: str, plots: Sequence[Sequence[Plot]]) -> str:
    """Fill templates/report.html; everything that comes from a result file is escaped.

    Args:
        comparison: what is shown.
        title: of the page.
        plots: of each section, in the comparison's order.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aggregate.render"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(
        is_bars=lambda panel: isinstance(panel, Bars), inline=_inline, value_of=value_of, range_of=range_of, words=words,
        times_of=_times, percent=lambda bars, value: f"{100 * bars.place(value):.4g}%", sort_value=_sort_value,
        number=number, fold_from=FOLD_FROM, better=BETTER,
    )  # fmt: skip
    of_section = dict(zip((section.title for section in comparison.sections), plots, strict=True))
    parts = [_part(comparison, section, texts, of_section) for section, texts in answer.headline(comparison)]
    facts = {run.letter: _facts(run) for run in comparison.runs}
    return environment.get_template("report.html").render(
        comparison=comparison, title=title, parts=parts, files=sum(len(run.results) for run in comparison.runs),
        problems=[answer.without_folder(problem) for problem in comparison.problems], metrics=METRICS,
        ratio_definition=ratios.DEFINITION, scaling_definition=scaling.DEFINITION, facts=facts, facets=_facets(facts),
        filterable=len(facts) >= FILTER_FROM, many=MANY,
        earlier=answer.earlier(comparison), footer=answer.footer(comparison), top=answer.top(comparison),
        listing=systems.listing(comparison),
    )  # fmt: skip


def _part(comparison: Comparison, section: Section, texts: list[str], plots: dict[str, Sequence[Plot]]) -> Part:
    widest, among = answer.widest(comparison.divergences[section.title])
    remarks = (section.reason, *answer.shared(section), answer.what_differs(section))
    return Part(
        section,
        texts,
        [text for text in remarks if text],
        outline.headline(comparison, section),
        outline.subtables(comparison, section),
        outline.phases(comparison, section),
        plots[section.title],
        [answer.divergence(pair) for pair in widest],
        among,
    )


def _facts(run: Run) -> dict[str, str]:
    """What a run is filtered by."""
    return {
        "platform": words.framework(run),
        "device": run.hardware.model,
        "precision": run.content.precision,
        "profile": ", ".join(run.profiles),
        "engine": run.content.engine,
    }


def _facets(facts: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """The values to choose from, of those facts that differ."""
    values = {facet: sorted({fact[facet] for fact in facts.values()}) for facet in FACETS}
    return {facet: several for facet, several in values.items() if len(several) > 1}


def _inline(image: Image, prefix: str) -> Markup:
    """The SVG with its ids made unique in the page, and with its description.

    It is this program's own: names from result files are escaped where it is made.
    """
    text = image.svg
    for mark in (' id="', 'href="#', "url(#"):
        text = text.replace(mark, f"{mark}{prefix}-")
    described = Markup('<svg role="img" aria-label="{}" ').format(image.title)
    return Markup(text.replace("<svg ", described, 1))


def _times(standing: Standing, place: int) -> str:
    """How far behind the best; empty where the two do not compare."""
    if not place:
        return "best"
    if standing.factor is None or not math.isfinite(standing.factor.ratio):
        return ""
    return f"{words.rounded(standing.factor.ratio)} times behind"


def _sort_value(text: str) -> float | str:
    """The number that a cell of a table is sorted by; empty where it has none."""
    if found := AGAINST.match(text):
        times = float(found[1].replace(",", ""))
        times = 1 + times / 100 if found[2] == "%" else times
        return times if found[3] == "faster" else 1 / times if times else ""
    if text.startswith("about as fast"):
        return 1.0
    try:
        return float(text.partition(" ")[0].replace(",", ""))
    except ValueError:
        return ""
