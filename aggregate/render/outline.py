"""Which tables a section has, in every form of the report."""

from collections.abc import Sequence

from aggregate.analysis.comparison import Comparison
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import PHASES
from aggregate.analysis.scaling import scalings
from aggregate.analysis.sections import Section
from aggregate.render import headline as six_metrics
from aggregate.render import tables
from aggregate.render.tables import Table, settled


def headline(comparison: Comparison, section: Section, *, apart: bool = True) -> Table:
    """The benchmark's six metrics, best first; `apart` gives each kind of memory, energy and cost a row of its own."""
    return settled(six_metrics.build(comparison, section, apart=apart))


def six(comparison: Comparison, sections: Sequence[Section]) -> Table:
    """The same of several sections, one below the other."""
    return settled(six_metrics.together(comparison, sections))


def details(comparison: Comparison, section: Section) -> Table:
    """Every figure of every phase."""
    return settled(tables.build("In detail", "", section.runs, comparison.summary))


def phases(comparison: Comparison, section: Section) -> list[Table]:
    """The same, a table for each phase that any run had."""
    each = []
    for phase in PHASES:
        if any(run.outcomes(phase.name) for run in section.runs):
            title, keys = phase.name.replace("_", " ").capitalize(), [metric.key for metric in phase.metrics]
            each.append(tables.build(title, "", section.runs, comparison.summary, keys))
    return [settled(table) for table in each if table.rows]


def subtables(comparison: Comparison, section: Section) -> list[Table]:
    """Ratios against the baseline, and scaling."""
    if not section.comparable:
        return []
    made = []
    if (baseline := comparison.baselines[section.title]) and len(section.runs) > 1:
        title = f"Speed against {baseline.letter} ({_name(baseline)})"
        made.append(tables.of_ratios(title, section.runs, baseline, comparison.ratios))
    made += [tables.of_scaling(each) for each in scalings(section.runs)]
    return [settled(table) for table in made]


def _name(run: Run) -> str:
    """What ran on what, in words."""
    words: Sequence[str] = (run.content.platform, run.content.engine, run.hardware.short, run.ranks.words)
    return ", ".join(filter(None, dict.fromkeys(words)))
