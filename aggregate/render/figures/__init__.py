"""The plots of a section, one file a kind."""

import io
import warnings

import matplotlib as mpl
from matplotlib.figure import Figure

from aggregate.analysis.sections import Section
from aggregate.render.figures import (
    accuracy,
    batch,
    cost,
    efficiency,
    energy,
    latency,
    loss,
    scaling,
    target,
    throughput,
)
from aggregate.render.figures.kind import Kind, Plot
from aggregate.render.figures.style import RC, name_of

KINDS = (
    throughput.KIND,
    latency.KIND,
    batch.KIND,
    accuracy.KIND,
    target.KIND,
    energy.KIND,
    cost.KIND,
    efficiency.KIND,
    loss.KIND,
    scaling.KIND,
)
"""In the order of the report."""
MAX_RUNS = 40
"""More lines than this no plot can show legibly."""


def draw(section: Section) -> list[Plot]:
    """All plots of a section; one with nothing to show says why instead.

    There are none of runs that are not proved to compute the specified model.
    """
    with mpl.rc_context(RC):
        return [draw_one(kind, section) for kind in KINDS] if section.comparable else []


def draw_one(kind: Kind, section: Section) -> Plot:
    """One plot of a section, in whatever style is set."""
    name = kind.stem + section.slug
    able = kind.able(section.runs)
    if not able:
        return Plot(name, kind.title, "", b"", b"", f"No plot: no run here has a {kind.what} to show.")
    shown, missing = able[:MAX_RUNS], []
    if lacking := [run.letter for run in section.runs if run not in able]:
        missing.append(f"Not in the plot, for want of a {kind.what} to show: {', '.join(lacking)}.")
    if len(able) > MAX_RUNS:
        missing.append(f"The first {MAX_RUNS} of {len(able):,} runs are drawn.")
    names = ", ".join(f"{run.letter} ({name_of(run)} · {run.content.precision})" for run in shown)
    notes = tuple(f"{run.letter}: {text}." for run in shown for text in kind.says(run))
    return Plot(name, kind.title, f"{kind.title} of {names}", *_files(kind.draw(shown)), " ".join(missing), notes)


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
