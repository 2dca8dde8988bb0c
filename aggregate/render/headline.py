"""The table on top: the benchmark's six metrics of all runs of a section, best first."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from aggregate.analysis import answer
from aggregate.analysis.answer import Answer, Key, Ranking, Standing
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.merging import Run
from aggregate.analysis.registry import METRIC
from aggregate.analysis.sections import Section
from aggregate.render import tables, words
from aggregate.render.tables import MISSING, Cell, Row, Table

LABELS: dict[Key, str] = {
    "full": "Training", "training": "Window", "latency": "Latency", "inference": "Inference", "target": "{target}",
    "energy": "Energy", "cost": "Cost", "memory": "Memory",
}  # fmt: skip
"""The six metrics: training in full and in a steady window, and what a training takes in time, energy and money."""


def build(comparison: Comparison, section: Section, *, apart: bool = True) -> Table:
    """The six metrics of a section's runs, the fastest first; what nobody has is said in a sentence.

    Args:
        comparison: where the section is of.
        section: whose runs.
        apart: a row for each kind of memory, energy and cost, as figures of different kinds do not compare; else one row
            for all, which says the kinds in notes and marks no best.
    """
    answers = comparison.answers[section.title] or answer.answers(section.runs)
    runs = _best_first(section.runs, answers["training"])
    table = Table(section.title, section.reason, tuple(runs))
    table.headers = [(table.cell(run.letter, run.notes), tables.heading(run)) for run in runs]
    target = f"{runs[0].result.spec.training.target_top1:.0%} top-1".replace("%", " %")
    absent = []
    for key, label in LABELS.items():
        of_key, title = answers[key], label.format(target=target)
        if not of_key.rankings:
            absent += [(title, key)] * (key != "full")  # that nobody trained in full, the target says
            continue
        if apart:
            rows = [_row(table, title, of_key, [ranking], section) for ranking in of_key.rankings]
        else:
            rows = [_row(table, title, of_key, of_key.rankings, section)]
        table.rows += rows
    table.folded = _folded(absent, answers)
    return table


def together(comparison: Comparison, sections: Sequence[Section]) -> Table:
    """The six metrics of several sections in one table, with one set of notes; a best is one of its section."""
    each = [build(comparison, section, apart=False) for section in sections]
    whole = Table("", "", tuple(run for table in each for run in table.runs))

    def moved(table: Table, cell: Cell) -> Cell:
        return replace(whole.cell(cell.text, [table.notes[mark - 1] for mark in cell.marks]), best=cell.best)

    whole.headers = [(moved(table, head), lines) for table in each for head, lines in table.headers]
    heads = dict.fromkeys((row.label, row.unit, row.better) for table in each for row in table.rows)
    for label, unit, better in heads:
        cells: list[Cell] = []
        for table in each:
            own = next((row.cells for row in table.rows if (row.label, row.unit) == (label, unit)), None)
            cells += [moved(table, cell) for cell in own] if own else [Cell("")] * len(table.runs)
        whole.rows.append(Row(label, unit, tuple(cells), starts=False, better=better))
    return whole


def _best_first(runs: Sequence[Run], training: Answer) -> list[Run]:
    """In the order of who trains fastest; those that were not timed last."""
    order = {standing.run.letter: i for r in training.rankings[:1] for i, standing in enumerate(r.standings)}
    return sorted(runs, key=lambda run: order.get(run.letter, len(order)))


def _row(table: Table, label: str, of_key: Answer, rankings: Sequence[Ranking], section: Section) -> Row:
    """One metric of all runs, of one kind of figure or of several."""
    found = {
        standing.run.letter: (standing, ranking) for ranking in reversed(rankings) for standing in ranking.standings
    }
    mixed = len({ranking.kind for ranking in rankings}) > 1
    why = {run.letter: reason for run, reason in of_key.unknown}
    cells = []
    for run in table.runs:
        if run.letter not in found:
            cells.append(table.cell(MISSING, [words.why(why[run.letter])] if run.letter in why else ()))
            continue
        standing, ranking = found[run.letter]
        best = section.comparable and not mixed and len(ranking.standings) > 1 and standing.value == ranking.best.value
        notes = list(_notes(standing, ranking, mixed=mixed))
        cells.append(Cell(_text(standing), table.cell("", notes).marks, best=best))
    unit = rankings[0].best.unit
    kind = "" if mixed else rankings[0].kind
    return Row(label, unit, tuple(cells), starts=False, kind=words.covers(kind),
               better=1 if of_key.question.more_is_better else -1)  # fmt: skip


def _notes(standing: Standing, ranking: Ranking, *, mixed: bool) -> Iterator[str]:
    """What must be known beside a value; what the kind of the row says already is left out."""
    if mixed and ranking.kind:
        yield words.covers(ranking.kind)
    if METRIC[standing.metric].warns:
        yield from standing.notes


def _text(standing: Standing) -> str:
    return tables.shown(standing.value, METRIC[standing.metric]) if math.isfinite(standing.value) else MISSING


def _folded(absent: Sequence[tuple[str, Key]], answers: dict[Key, Answer]) -> list[str]:
    """One sentence of the metrics that no run has, by reason."""
    by_reason: dict[str, list[str]] = {}
    for title, key in absent:
        for reason in dict.fromkeys(reason for _, reason in answers[key].unknown):
            by_reason.setdefault(words.why(reason), []).append(title)
    parts = [f"{words.listed(titles)} ({reason})" for reason, titles in by_reason.items()]
    return [f"No run here has: {'; '.join(parts)}."] if parts else []
