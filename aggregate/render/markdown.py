"""The report as GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence

from aggregate.analysis import ratios, scaling
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.losses import Divergence
from aggregate.analysis.registry import METRICS
from aggregate.render import answer, outline, systems
from aggregate.render.figures.kind import Plot
from aggregate.render.systems import Listing
from aggregate.render.tables import Cell, Row, Table, footnotes


def page(comparison: Comparison, title: str, plots: Sequence[Sequence[Plot]], *, lasting: bool = False) -> str:
    """The whole report; `plots` has those of each section.

    A `lasting` one says the same whenever it is made: no ages, no date. What figures mean has a page of its own then.
    """
    parts = [f"# {escaped(title)}", *map(escaped, answer.top(comparison))]
    of_title = {section.title: drawn for section, drawn in zip(comparison.sections, plots, strict=True)}
    for section, sentences in answer.headline(comparison):
        parts += [f"## {escaped(section.title)}"]
        parts += [escaped(text) for text in (section.reason, *sentences, answer.what_differs(section)) if text]
        parts += [of_table(outline.headline(comparison, section))]
        for table in (*outline.subtables(comparison, section), outline.details(comparison, section)):
            parts += [f"### {escaped(table.title)}", of_table(table)]
        parts += [_plot(plot) for plot in of_title[section.title]]
        parts += _loss_traces(comparison.divergences[section.title])
    parts += [of_listing(systems.listing(comparison, ages=not lasting))]
    parts += [] if lasting else [_definitions()]
    left_out = [*answer.earlier(comparison), *map(answer.without_folder, comparison.problems)]
    if left_out:
        parts += ["## Files that are not compared", "\n".join(f"- {escaped(text)}" for text in left_out)]
    parts += [] if lasting else [escaped(answer.footer(comparison))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def of_listing(listing: Listing) -> str:
    """The systems, a line a run."""
    lines = [listing.heads, ("---",) * len(listing.heads)]
    lines += [(f"**{letter}**", *map(escaped, facts)) for letter, *facts in listing.lines]
    return "\n".join([f"## {listing.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


def _plot(plot: Plot) -> str:
    image = f"![{escaped(plot.alt)}](plots/{plot.name}.png)" if plot.png else ""
    notes = "\n".join(f"- {escaped(note)}" for note in plot.notes)
    return "\n\n".join(part for part in (f"### {plot.title}", image, plot.missing, notes) if part)


def _loss_traces(divergences: Sequence[Divergence]) -> list[str]:
    if not divergences:
        return []
    widest, among = answer.widest(divergences)
    lines = "\n".join(f"- {escaped(answer.divergence(each))}" for each in widest)
    return [
        "### Loss divergence",
        "Runs of the same data, initial values, batch and seed: largest \\|a - b\\| / max(a, b)." + among,
        lines,
    ]


def _definitions() -> str:
    lines = [
        f"- **{metric.title}**{f' ({metric.unit})' if metric.unit else ''}: {metric.definition}." for metric in METRICS
    ]
    lines.append(f"- **Scaling efficiency**: {scaling.DEFINITION}.")
    lines.append(f"- **Times as fast**: {ratios.DEFINITION}")
    return "## How each figure is found\n\n" + "\n".join(lines)


def of_table(table: Table) -> str:
    """A table as GitHub-flavoured Markdown with its footnotes below."""

    def marked(cell: Cell) -> str:
        text = f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text)
        return text + (f" {cell.superscript}" if cell.marks else "")

    headers = ["<br>".join([f"**{marked(head)}**", *map(escaped, lines)]) for head, lines in table.headers]
    lines = [["", "", *headers], ["---", "---", *(["---:"] * len(headers))]]
    lines += [[escaped(_label(row)), row.unit, *map(marked, row.cells)] for row in table.rows]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    below = "\n".join(f"{escaped(note)}<br>" for note in (*footnotes(table), *table.folded))
    more = "\n".join(f"- {escaped(note)}" for note in table.more)
    folded = f"<details><summary>More notes</summary>\n\n{more}\n\n</details>" if more else ""
    return "\n\n".join(filter(None, [grid, below, folded])).strip() + "\n"


def _label(row: Row) -> str:
    return f"{row.label.strip()} ({row.kind})" if row.kind else row.label.strip()


def escaped(text: str) -> str:
    """`text` so that Markdown shows it as it is: no markup, no HTML, no link and no table cell of its own."""
    harmless = re.sub(r"([\\`*_\[\]<>|~$!#&@])", r"\\\1", text)
    return re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)", r"\\", harmless, flags=re.IGNORECASE)
