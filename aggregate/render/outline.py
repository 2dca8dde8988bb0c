"""Which tables a section has, in every form of the report."""

from collections.abc import Sequence

from aggregate.analysis.comparison import Comparison
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import PHASES
from aggregate.analysis.scaling import scalings
from aggregate.analysis.sections import Section, same_framework, same_hardware
from aggregate.render import tables
from aggregate.render.tables import HEADLINE, Table


def headline(comparison: Comparison, section: Section) -> Table:
    """The benchmark's six metrics."""
    return tables.build(section.title, section.reason, section.runs, comparison.summary, HEADLINE)


def details(comparison: Comparison, section: Section) -> Table:
    """Every figure of every phase."""
    return tables.build("In detail", "", section.runs, comparison.summary)


def phases(comparison: Comparison, section: Section) -> list[Table]:
    """The same, a table for each phase that any run had."""
    each = []
    for phase in PHASES:
        if any(run.outcomes(phase.name) for run in section.runs):
            title, keys = phase.name.replace("_", " ").capitalize(), [metric.key for metric in phase.metrics]
            each.append(tables.build(title, "", section.runs, comparison.summary, keys))
    return [table for table in each if table.rows]


def subtables(comparison: Comparison, section: Section) -> list[Table]:
    """Ratios against the baseline, scaling, and who shares hardware or framework with whom."""
    if not section.comparable:
        return []
    made = []
    if (baseline := comparison.baselines[section.title]) and len(section.runs) > 1:
        title = f"Times as fast as {baseline.letter} ({_name(baseline)})"
        made.append(tables.of_ratios(title, section.runs, baseline, comparison.ratios))
    made += [tables.of_scaling(each) for each in scalings(section.runs)]
    for words, groups in (
        ("Same hardware", same_hardware(section.runs)),
        ("Same framework", same_framework(section.runs)),
    ):
        made += [
            tables.build(f"{words}: {shared}", "", runs, comparison.summary, HEADLINE)
            for shared, runs in groups
            if len(runs) < len(section.runs)
        ]
    return made


def _name(run: Run) -> str:
    """What ran on what, in words."""
    words: Sequence[str] = (run.content.platform, run.content.engine, run.hardware.short, run.ranks.words)
    return ", ".join(filter(None, dict.fromkeys(words)))
