"""The report as GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence

from aggregate.analysis import ratios, scaling
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import METRICS
from aggregate.render import answer, outline
from aggregate.render.figures.kind import Plot
from aggregate.render.tables import Cell, Table, footnotes


def page(comparison: Comparison, title: str, plots: Sequence[Sequence[Plot]], *, definitions: bool = True) -> str:
    """The whole report; `plots` has those of each section, `definitions` says whether what figures mean is in it."""
    parts = [f"# {escaped(title)}", _runs(comparison.runs)]
    for section, of_section in zip(comparison.sections, plots, strict=True):
        parts += [f"## {escaped(section.title)}"]
        parts += [escaped(text) for text in (section.reason, *answer.shared(section)) if text]
        parts += [of_table(outline.headline(comparison, section))]
        for table in (*outline.subtables(comparison, section), outline.details(comparison, section)):
            parts += [f"### {escaped(table.title)}", of_table(table)]
        parts += [_plot(plot) for plot in of_section]
        parts += _loss_traces(comparison.divergences[section.title])
    parts += [_definitions()] * definitions
    if comparison.problems:
        lines = [f"- {escaped(answer.without_folder(problem))}" for problem in comparison.problems]
        parts += ["## Files that are not compared", "\n".join(lines)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _runs(runs: Sequence[Run]) -> str:
    lines = ["| | platform | engine | framework | device | precision | profile | data | conformance | commit | file |"]
    lines += ["|" + " --- |" * 11]
    for run in runs:
        r = run.identity
        hardware = ", ".join(filter(None, (run.hardware.short, run.ranks.words)))
        commit = (r["git_commit"] or "unknown")[:10] + (" (changed)" if r["git_clean"] is False else "")
        first = (r["platform"], r["engine"], r["framework"], hardware, r["precision"], r["profile"])
        cells = (*first, r["data"], r["conformance"], commit, r["file"])
        lines.append(f"| **{r['run']}** | " + " | ".join(map(escaped, cells)) + " |")
    return "\n".join(lines)


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
        return escaped(cell.text) + (f" {cell.superscript}" if cell.marks else "")

    headers = ["<br>".join([f"**{marked(head)}**", *map(escaped, lines)]) for head, lines in table.headers]
    lines = [["", "", *headers], ["---", "---", *(["---:"] * len(headers))]]
    lines += [[escaped(row.label.strip()), row.unit, *map(marked, row.cells)] for row in table.rows]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([grid, "\n".join(f"{escaped(note)}<br>" for note in footnotes(table))]).strip() + "\n"


def escaped(text: str) -> str:
    """`text` so that Markdown shows it as it is: no markup, no HTML, no link and no table cell of its own."""
    harmless = re.sub(r"([\\`*_\[\]<>|~$!#&@])", r"\\\1", text)
    return re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)", r"\\", harmless, flags=re.IGNORECASE)
