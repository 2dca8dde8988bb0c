"""Writes report/: the comparison as a page, as Markdown and CSV, and the plots."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from aggregate.analysis.comparison import Comparison
from aggregate.render import answer, csv, figures, html, markdown
from aggregate.render.figures import KINDS
from aggregate.render.figures.kind import Plot
from shared_spec import files
from shared_spec.errors import UserError

OWN_PLOT = re.compile(rf"({'|'.join(kind.stem for kind in KINDS)})(-[0-9a-f]{{12}})?(-bf16)?\.(png|svg|pdf)")
"""Names of the plots that a report writes, and so may remove when it is made anew."""
TITLE = "DeiT-small on CIFAR-100: comparison"


def write(comparison: Comparison, out: Path, title: str = TITLE) -> list[list[Plot]]:
    """Write index.html, comparison.md, comparison.csv and plots/ into `out`, each file whole or not at all.

    Plots that an earlier report left there and this one does not have are removed; nothing else is touched.

    Returns:
        The plots of each section.

    Raises:
        UserError: `out` cannot be written to.
    """
    plots = [figures.draw(section, comparison.runs) for section in comparison.sections]
    present = [plot for of_section in plots for plot in of_section if plot.png]
    drawn = (
        {f"{p.name}.png": p.png for p in present}
        | {f"{p.name}.svg": p.svg for p in present}
        | {f"{p.name}.pdf": p.pdf for p in present}
    )
    try:
        for name, data in drawn.items():
            files.write_atomic(out / "plots" / name, data)
        for name, form in (("index.html", "html"), ("comparison.csv", "csv"), ("comparison.md", "markdown")):
            files.write_atomic(out / name, as_text(comparison, plots, form, title).encode())
        for stale in (out / "plots").glob("*"):
            if OWN_PLOT.fullmatch(stale.name) and stale.name not in drawn:
                stale.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); give another folder.") from error
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
        "figures": json.loads(comparison.summary.to_json(orient="records")),
        "problems": [answer.without_folder(problem) for problem in comparison.problems],
        "warnings": comparison.warnings,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
