"""The report as one self-contained HTML page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jinja2
from markupsafe import Markup, escape

from aggregate.analysis import ratios, scaling
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.registry import METRICS
from aggregate.analysis.sections import Section
from aggregate.render import answer, outline
from aggregate.render.figures.kind import Plot
from aggregate.render.tables import Table


@dataclass(frozen=True)
class Inlined:
    """A plot as it stands in the page."""

    plot: Plot
    prefix: str

    @property
    def title(self) -> str:
        """What it shows."""
        return self.plot.title

    @property
    def missing(self) -> str:
        """What is not in it, and why."""
        return self.plot.missing

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know when reading it."""
        return self.plot.notes

    @property
    def svg(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.plot.svg)

    @cached_property
    def inline(self) -> Markup:
        """The SVG without its prologue, its ids made unique in the page, and with its description.

        It is this program's own: names from result files are drawn as paths, never written as text.
        """
        text = self.plot.svg.decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
        text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.prefix}-", text)
        return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(self.plot.alt)}" ', 1))


@dataclass(frozen=True)
class Part:
    """All that the page shows of a section.

    Attributes:
        section: its runs.
        sentences: said before its tables.
        headline: the six metrics.
        subtables: ratios, scaling, and what is shared.
        phases: a table each.
        drawn: its plots, those with nothing to show too.
        divergences: how far losses are apart, a sentence a pair.
        among: said before these, where not all are listed.
    """

    section: Section
    sentences: list[str]
    headline: Table
    subtables: list[Table]
    phases: list[Table]
    drawn: Sequence[Plot]
    divergences: list[str]
    among: str

    @property
    def plots(self) -> list[Inlined]:
        """As they stand in the page."""
        return [Inlined(plot, f"p{i}{self.section.slug}") for i, plot in enumerate(self.drawn)]

    @property
    def absent(self) -> list[str]:
        """The plots with nothing to show, and why."""
        return [f"{plot.title}: {plot.missing}" for plot in self.drawn if not plot.svg]


def page(comparison: Comparison, title: str, plots: Sequence[Sequence[Plot]]) -> str:
    """Fill templates/report.html; everything that comes from a result file is escaped.

    Args:
        comparison: what is shown.
        title: of the page.
        plots: of each section.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aggregate.render"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    parts = [_part(comparison, *of_section) for of_section in zip(comparison.sections, plots, strict=True)]
    return environment.get_template("report.html").render(
        comparison=comparison, title=title, parts=parts, files=sum(len(run.results) for run in comparison.runs),
        problems=[answer.without_folder(problem) for problem in comparison.problems], metrics=METRICS,
        ratio_definition=ratios.DEFINITION, scaling_definition=scaling.DEFINITION,
    )  # fmt: skip


def _part(comparison: Comparison, section: Section, plots: Sequence[Plot]) -> Part:
    widest, among = answer.widest(comparison.divergences[section.title])
    return Part(
        section,
        [
            text
            for text in (section.reason, *answer.of_section(comparison, section), answer.what_differs(section))
            if text
        ],
        outline.headline(comparison, section),
        outline.subtables(comparison, section),
        outline.phases(comparison, section),
        plots,
        [answer.divergence(pair) for pair in widest],
        among,
    )
