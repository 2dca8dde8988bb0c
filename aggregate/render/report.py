"""Writes report/: the comparison as a page, as Markdown and CSV, and the plots."""

import json
from collections.abc import Sequence
from pathlib import Path

from aggregate import __version__
from aggregate.analysis.comparison import Comparison
from aggregate.render import answer, csv, figures, folder, html, markdown
from aggregate.render.figures.kind import Plot

TITLE = "DeiT-small on CIFAR-100: comparison"


def write(comparison: Comparison, out: Path, title: str = TITLE, force: bool = False) -> list[list[Plot]]:
    """Write index.html, comparison.md, comparison.csv and plots/ into `out`, each file whole or not at all.

    What an earlier report left there and this one does not have is removed; nothing else is touched.

    Args:
        comparison: what is shown.
        out: the folder.
        title: of the report.
        force: overwrite files that no report wrote.

    Returns:
        The plots of each section.

    Raises:
        UserError: `out` cannot be written to, or holds files of somebody else under the names that are needed.
    """
    plots = [figures.draw(section, comparison.runs) for section in comparison.sections]
    present = [plot for of_section in plots for plot in of_section if plot.png]
    content = {f"plots/{p.name}.{form}": data for p in present for form, data in p.files.items()}
    for name, form in (("index.html", "html"), ("comparison.csv", "csv"), ("comparison.md", "markdown")):
        content[name] = as_text(comparison, plots, form, title).encode()
    folder.write(out, content, force)
    return plots


def as_text(comparison: Comparison, plots: Sequence[Sequence[Plot]], form: str, title: str = TITLE) -> str:
    """The comparison as "markdown", "csv", "json" or "html"; `plots` has those of each section."""
    if form == "markdown":
        return markdown.page(comparison, title, plots)
    if form == "html":
        return html.page(comparison, title, plots)
    if form == "csv":
        return csv.page(comparison.summary)
    content = {
        "title": title,
        "made": comparison.made.isoformat(timespec="seconds"),
        "tool": __version__,
        "answer": answer.top(comparison),
        "sections": [
            {"title": section.title, "answer": sentences, "what_differs": answer.what_differs(section)}
            for section, sentences in answer.headline(comparison)
        ],
        "earlier": answer.earlier(comparison),
        "figures": json.loads(comparison.summary.to_json(orient="records")),
        "problems": [answer.without_folder(problem) for problem in comparison.problems],
        "warnings": comparison.warnings,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
