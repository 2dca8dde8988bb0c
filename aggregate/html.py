"""The report as one self-contained HTML page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jinja2
from markupsafe import Markup, escape

from aggregate import scaling
from aggregate.compare import Section
from aggregate.metrics import METRICS
from aggregate.plots import Plot
from aggregate.ratios import DEFINITION
from aggregate.tables import Table


@dataclass(frozen=True)
class Inlined:
    """A plot as it stands in the page."""

    plot: Plot
    prefix: str

    @property
    def title(self) -> str:
        return self.plot.title

    @property
    def missing(self) -> str:
        return self.plot.missing

    @property
    def notes(self) -> tuple[str, ...]:
        return self.plot.notes

    @property
    def svg(self) -> bool:
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
        among: said before the partings, where not all are listed.
    """

    section: Section
    sentences: list[str]
    headline: Table
    subtables: list[Table]
    phases: list[Table]
    drawn: Sequence[Plot]
    partings: list[str]
    among: str

    @property
    def plots(self) -> list[Inlined]:
        return [Inlined(plot, f"p{i}{self.section.slug}") for i, plot in enumerate(self.drawn)]

    @property
    def absent(self) -> list[str]:
        return [f"{plot.title}: {plot.missing}" for plot in self.drawn if not plot.svg]


def page(comparison: object, files: int, parts: Sequence[Part], problems: Sequence[str]) -> str:
    """Fill templates/report.html; everything that comes from a result file is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aggregate"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        comparison=comparison, files=files, parts=parts, problems=problems, metrics=METRICS,
        ratio_definition=DEFINITION, scaling_definition=scaling.DEFINITION,
    )  # fmt: skip
