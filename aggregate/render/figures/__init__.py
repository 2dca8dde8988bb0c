"""The charts of a section, one file a kind; each is made of panels, which a file has side by side and the page one by one."""

from collections.abc import Sequence

from aggregate.analysis.merging import Run
from aggregate.analysis.sections import Section
from aggregate.render import matplotlib_alone, words
from aggregate.render.figures import (
    accuracy,
    batch,
    files,
    loss,
    questions,
    scaling,
    spread,
)
from aggregate.render.figures.bars import Bars
from aggregate.render.figures.kind import Kind, Panel, Plot
from aggregate.render.figures.style import RC, Looks, looks, name_of

KINDS = (
    questions.TRAINING,
    questions.INFERENCE,
    questions.TARGET,
    questions.ENERGY,
    questions.COST,
    questions.MEMORY,
    accuracy.KIND,
    batch.KIND,
    spread.KIND,
    scaling.KIND,
    questions.EFFICIENCY,
    loss.KIND,
)
"""In the order of the report."""
MAX_RUNS = 40
"""More lines than this no chart can show legibly; bars stand below one another and are all shown on the page."""


def draw(section: Section, all_runs: Sequence[Run] = ()) -> list[Plot]:
    """All charts of a section; one with nothing to show says why instead.

    There are none of runs that are not proved to compute the specified model.

    Args:
        section: its runs.
        all_runs: of the report, which decide what each run looks like; the section's where none are given.
    """
    if not section.comparable:
        return []
    known = looks(all_runs or section.runs)
    with matplotlib_alone.styled(RC):
        return [draw_one(kind, section, known) for kind in KINDS]


def draw_one(kind: Kind, section: Section, looks: Looks) -> Plot:
    """One chart of a section, in whatever style is set."""
    name = kind.stem + section.slug
    able = kind.able(section.runs)
    if not able:
        missing = f"No chart: no run here has a {kind.what} to show."
        return Plot(name, kind.title, "", b"", b"", missing, details=kind.details)
    shown = able[:MAX_RUNS]
    panels = kind.panels(shown, looks)
    on_page = panels if isinstance(panels[0], Panel) else kind.panels(section.runs, looks)
    names = ", ".join(f"{name_of(run)} ({run.content.precision})" for run in shown)
    notes = tuple(f"{run.letter}: {text}." for run in shown for text in kind.says(run))
    png, svg, pdf = files.of(panels, shown, looks, kind.title)
    inline = tuple(panel if isinstance(panel, Bars) else files.inline(panel) for panel in on_page)
    missing = _missing(kind, section, able, len(shown))
    return Plot(name, kind.title, f"{kind.title} {names}", png, svg, missing, notes, pdf, inline, kind.details)


def _missing(kind: Kind, section: Section, able: Sequence[Run], shown: int) -> str:
    """What a chart does not show, and why."""
    known, texts = {run.letter for run in able}, []
    if lacking := [run.letter for run in section.runs if run.letter not in known]:
        texts.append(f"Not shown, for want of a {kind.what}: {words.whom(lacking, len(section.runs))}.")
    if len(able) > shown:
        texts.append(f"The first {shown} of {len(able):,} runs are drawn.")
    return " ".join(texts)
