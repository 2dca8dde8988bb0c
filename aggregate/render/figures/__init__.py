"""The charts of a section, one file a kind; each is made of panels, which a file has side by side and the page one by one."""

from collections.abc import Sequence

from aggregate.analysis.merging import Run
from aggregate.analysis.sections import Section
from aggregate.render.figures import matplotlib_alone  # first: it imports matplotlib without the user's settings
from aggregate.render.figures import accuracy, batch, files, loss, questions, scaling, spread
from aggregate.render.figures.bars import Bars
from aggregate.render.figures.kind import Kind, Plot
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
    shown, missing = able[:MAX_RUNS], []
    if lacking := [run.letter for run in section.runs if run not in able]:
        missing.append(f"Not shown, for want of a {kind.what}: {', '.join(lacking)}.")
    if len(able) > MAX_RUNS:
        missing.append(f"The first {MAX_RUNS} of {len(able):,} runs are drawn.")
    names = ", ".join(f"{name_of(run)} ({run.content.precision})" for run in shown)
    notes = tuple(f"{run.letter}: {text}." for run in shown for text in kind.says(run))
    panels = kind.panels(shown, looks)
    png, svg, pdf = files.of(panels, shown, looks, kind.title)
    on_page = kind.panels(able, looks) if len(able) > MAX_RUNS and all(isinstance(p, Bars) for p in panels) else panels
    inline = tuple(panel if isinstance(panel, Bars) else files.inline(panel) for panel in on_page)
    alt = f"{kind.title} {names}"
    return Plot(name, kind.title, alt, png, svg, " ".join(missing), notes, pdf, inline, kind.details)
