"""The comparison as tables, before they take a form: metrics down, runs across."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from aggregate.analysis import notes
from aggregate.analysis.merging import Run
from aggregate.analysis.metrics import NOT_RUN, Metric
from aggregate.analysis.phases.inference import untried
from aggregate.analysis.ratios import FASTER_IS, Ratio
from aggregate.analysis.ratios import HEADLINE as HEADLINE_THROUGHPUT
from aggregate.analysis.registry import METRIC, METRICS
from aggregate.analysis.scaling import Point, Scaling

MISSING = "\N{EN DASH}"
ONLY_IN_FILES = ("batch_throughput", "batch_memory")
"""Figures that the CSV file and the plots have, and no table: every run has batches of its own."""
PERCENT_UP_TO = 1.5
"""Up to this factor people say per cent, above it times."""
HEADER_WIDTH = 16
MAX_NOTES = 6
"""Notes of a table; more than these nobody reads."""
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """Text, the numbers of its footnotes, and whether it is the best of its metric."""

    text: str
    marks: tuple[int, ...] = ()
    best: bool = False

    @property
    def superscript(self) -> str:
        """The marks as they stand beside the text."""
        return " ".join(str(mark).translate(SUPERSCRIPT) for mark in self.marks)


@dataclass(frozen=True)
class Row:
    """One metric of all runs.

    Attributes:
        label: name of the metric.
        unit: of its values.
        cells: one of each run.
        starts: whether a new phase begins here.
        kind: what the figures cover, where this must be known: those of different kinds do not compare.
        better: +1 where the largest is best, -1 where the smallest is, 0 where there is no best.
    """

    label: str
    unit: str
    cells: tuple[Cell, ...]
    starts: bool
    kind: str = ""
    better: int = 0


@dataclass
class Table:
    """Metrics down, runs across.

    Attributes:
        title: what is compared.
        reason: why these runs are apart from others; empty where they are not.
        runs: what the columns stand for.
        headers: the head of each column, which carries the marks, and lines of text below it.
        rows: the first of each phase starts a new group.
        notes: the footnotes; the first has number 1.
        more: what else is to be known, beyond the notes; for who wants all.
        folded: sentences on metrics that no run has.
    """

    title: str
    reason: str
    runs: tuple[Run, ...]
    headers: list[tuple[Cell, list[str]]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)

    def cell(self, text: str, notes: Sequence[str]) -> Cell:
        """A cell with footnotes; equal ones share a number."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
        return Cell(text, tuple(sorted({self.notes.index(note) + 1 for note in notes})))


def settled(table: Table) -> Table:
    """The table with at most MAX_NOTES notes: alike ones are one, and the rest is in `more`, said with whom it is of.

    What is said of a whole run goes first, then what concerns most cells.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number, note in enumerate(table.notes, 1):
        groups[notes.gist(note)].append(number)
    heads = [mark for head, _ in table.headers for mark in head.marks]
    marks = [mark for row in table.rows for cell in row.cells for mark in cell.marks]

    def weight(numbers: Sequence[int]) -> tuple[int, int]:
        return -sum(heads.count(n) for n in numbers), -sum(marks.count(n) for n in numbers)

    ordered = sorted(groups.values(), key=weight)
    kept = sorted(ordered[:MAX_NOTES])
    new = {old: i for i, numbers in enumerate(kept, 1) for old in numbers}

    def renumbered(cell: Cell) -> Cell:
        return replace(cell, marks=tuple(sorted({new[mark] for mark in cell.marks if mark in new})))

    alike = {tuple(numbers): notes.alike([table.notes[n - 1] for n in numbers]) for numbers in ordered}
    shortened = [numbers for numbers in kept if len(alike[tuple(numbers)]) > 1]
    return replace(
        table,
        headers=[(renumbered(head), lines) for head, lines in table.headers],
        rows=[replace(row, cells=tuple(map(renumbered, row.cells))) for row in table.rows],
        notes=[_one_note(alike[tuple(numbers)]) for numbers in kept],
        more=[
            _with_whom(table, number) for numbers in (*shortened, *sorted(ordered[MAX_NOTES:])) for number in numbers
        ],
    )


def _one_note(alike: Sequence[str]) -> str:
    """Notes of one gist: the note itself, or what they share."""
    return alike[0] if len(alike) == 1 else notes.gist(alike[0])


def _with_whom(table: Table, number: int) -> str:
    """A note behind the letters of the runs it is of: "B, D: at batch 64"."""
    whom = [
        run.letter
        for i, run in enumerate(table.runs)
        if number in {*table.headers[i][0].marks, *(mark for row in table.rows for mark in row.cells[i].marks)}
    ]
    return f"{', '.join(whom)}: {table.notes[number - 1]}"


def footnotes(table: Table) -> list[str]:
    """The notes of a table, each with its mark."""
    return [f"{str(i).translate(SUPERSCRIPT)} {note}" for i, note in enumerate(table.notes, 1)]


def number(value: float, digits: int = 4) -> str:
    """A number to `digits` significant ones, whole ones never rounded: "12,345", "3.142", "0.0012", "1.2e-07"."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.9999 becomes 10.00
    if not -4 <= exponent < 9:
        return f"{value:.{digits - 1}g}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def shown(value: float, metric: Metric) -> str:
    """A value as the tables have it, without its unit."""
    if metric.unit == "%" and abs(value) < 1e4:
        return f"{round(value, 1) + 0.0:.1f}"  # + 0.0: never "-0.0"
    if metric.unit in ("", "images") and value == round(value):  # a count
        return f"{value:,.0f}"
    return number(value, metric.digits)


def heading(run: Run) -> list[str]:
    """What ran, in lines that fit a column."""
    c = run.content
    synthetic = " · synthetic" if c.data.source == "synthetic" else ""
    return [
        *textwrap.wrap(c.platform, HEADER_WIDTH),
        *textwrap.wrap(f"{c.engine} · {c.precision}", HEADER_WIDTH),
        *(
            line
            for part in run.hardware.parts
            for line in textwrap.wrap(part, HEADER_WIDTH, max_lines=3, placeholder=" …")
        ),
        *filter(None, [run.ranks.words]),
        f"{', '.join(run.profiles)}{synthetic}",
        *([f"{len(run.results)} runs"] if len(run.results) > 1 else []),
    ]


Records = dict[tuple[str, str], list[dict[str, Any]]]
"""Records of the summary by run letter and metric: one, or one per batch size."""


def build(title: str, reason: str, runs: Sequence[Run], summary: pd.DataFrame, keys: Sequence[str] = ()) -> Table:
    """The table of `runs` from the data frame of aggregate.analysis.summary.

    Args:
        title: what is compared.
        reason: why these runs are apart; may be empty.
        runs: the columns.
        summary: of these runs, among others.
        keys: the metrics to show; none means all of the phases that any of the runs had.
    """
    table = Table(title, reason, tuple(runs))
    table.headers = [(table.cell(run.letter, run.notes), heading(run)) for run in runs]
    records: Records = defaultdict(list)
    for record in summary.to_dict("records"):
        records[record["run"], record["metric"]].append({str(key): value for key, value in record.items()})
    phase = ""
    for metric in METRICS:
        if metric.key in ONLY_IN_FILES or not (metric.key in keys if keys else _has_run(records, metric)):
            continue
        for label, unit, cells in _lines(table, metric, records):
            table.rows.append(Row(label, unit, tuple(cells), starts=metric.phase != phase))
            phase = metric.phase
    return table


def of_ratios(title: str, runs: Sequence[Run], baseline: Run, ratios: Mapping[tuple[str, str], Ratio]) -> Table:
    """How many times as fast as the baseline each other run is, with interval and verdict."""
    others = [run for run in runs if run is not baseline]
    table = Table(title, "", tuple(others))
    table.headers = [(Cell(run.letter), heading(run)) for run in others]
    for i, key in enumerate((HEADLINE_THROUGHPUT, *FASTER_IS)):
        if not all(math.isnan(ratios[run.letter, key].ratio) for run in others):
            cells = [_ratio_cell(table, ratios[run.letter, key]) for run in others]
            table.rows.append(Row(METRIC[key].title, "", tuple(cells), starts=i == 0))
    return table


def _ratio_cell(table: Table, ratio: Ratio) -> Cell:
    if math.isnan(ratio.ratio):
        return table.cell(MISSING, (ratio.reason,))
    return table.cell(against(ratio), (ratio.method if ratio.verdict else ratio.reason,))


def against(ratio: Ratio) -> str:
    """A ratio as people say it: "291 times slower", "12.3 % faster (8.1 to 16.7 %)", "about as fast (0.97 to 1.05 times)"."""
    if ratio.verdict == "too close to call":
        return f"about as fast ({number(ratio.low, 3)} to {number(ratio.high, 3)} times)"
    slower = ratio.ratio < 1
    ends = sorted((1 / end if slower and end else end) for end in (ratio.low, ratio.high))
    times, low, high = (1 / ratio.ratio if slower and ratio.ratio else ratio.ratio), *ends
    word, percent = "slower" if slower else "faster", times < PERCENT_UP_TO

    def said(value: float) -> str:
        return number(100 * (value - 1) if percent else value, 3)

    unit = "%" if percent else "times"
    between = f" ({said(low)} to {said(high)} {unit})" if ratio.verdict else ""
    return f"{said(times)} {unit} {word}{between}"


def _has_run(records: Records, metric: Metric) -> bool:
    of_metric = [record for (_, key), of_run in records.items() if key == metric.key for record in of_run]
    return not all(record["reason"].endswith(NOT_RUN) for record in of_metric)


def _lines(table: Table, metric: Metric, records: Records) -> Iterator[tuple[str, str, list[Cell]]]:
    """The rows of one metric as (label, unit, cells)."""
    of_run = [(run, records[run.letter, metric.key]) for run in table.runs]
    if metric.key == "inference_throughput":
        batches = {r["batch_size"] for _, of_metric in of_run for r in of_metric if not pd.isna(r["batch_size"])}
        for batch in sorted(batches):
            yield (
                f"{metric.title} {batch:,}",
                metric.unit,
                [_cell(table, _at(batch, run, of_metric)) for run, of_metric in of_run],
            )
        return
    title = metric.title
    if metric.key in ("training_throughput", "inference_reference"):
        title += f", batch {table.runs[0].result.spec.training.batch_size:,}"
        if metric.key == "training_throughput" and any(run.ranks.scaling == "weak" for run in table.runs):
            title += " (a rank, where weak)"
    firsts = [of_metric[0] for _, of_metric in of_run]
    unit = next((first["unit"] for first in firsts if first["unit"]), "")
    yield title, unit, [_cell(table, first) for first in firsts]
    if metric.key == "training_throughput" and any(first["repeats"] > 1 for first in firsts):
        yield "  lowest to highest repeat", metric.unit, [_range(first) for first in firsts]


def _at(batch: int, run: Run, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of one batch size, or one that says why there is none."""
    exact = [record for record in records if not pd.isna(record["batch_size"]) and record["batch_size"] == batch]
    if exact:
        return exact[0]
    if all(pd.isna(record["batch_size"]) for record in records):
        return records[0]
    return {"value": math.nan, "reason": untried(run.results, run.profiles)}


def _cell(table: Table, record: dict[str, Any]) -> Cell:
    value = record["value"]
    if math.isnan(value):
        return table.cell(MISSING, (record["reason"],))
    if METRIC[record["metric"]].merge == "sum":
        return table.cell(f"{value:.0f} of {record['n']}", record["notes"])
    return table.cell(shown(value, METRIC[record["metric"]]), record["notes"])


def _range(record: dict[str, Any]) -> Cell:
    metric, several = METRIC[record["metric"]], record["repeats"] > 1
    return Cell(f"{shown(record['low'], metric)} to {shown(record['high'], metric)}" if several else MISSING)


def of_scaling(scaling: Scaling) -> Table:
    """Throughput, speed-up and efficiency, and what the ranks cost one another."""
    title = f"{scaling.kind.capitalize()} scaling against {scaling.alone.letter}, one process"
    table, points = Table(title, "", scaling.runs), scaling.points
    table.headers = [(Cell(run.letter), heading(run)) for run in scaling.runs]
    rows = {
        "Ranks": ("", [Cell(f"{point.run.ranks.size:,}") for point in points]),
        "Connected by": ("", [Cell(point.run.ranks.how or MISSING) for point in points]),
        "Global batch": ("images", [_plain(point.global_batch, ",.0f") for point in points]),
        "Speed-up": ("x", [_speedup(table, point) for point in points]),
        "Scaling efficiency": ("%", [_efficiency(table, point) for point in points]),
        "Slowest rank against the fastest": ("%", [_plain(point.slowest_rank, ".1f") for point in points]),
        "Communication a step": ("ms", [_milliseconds(table, point.communication_seconds) for point in points]),
        "  behind the backward pass": ("ms", [_milliseconds(table, point.overlapped_seconds) for point in points]),
    }
    table.rows = [Row(label, unit, tuple(cells), starts=label == "Ranks") for label, (unit, cells) in rows.items()]
    return table


def _plain(value: float | None, form: str) -> Cell:
    return Cell(MISSING if value is None else f"{value:{form}}")


def _speedup(table: Table, point: Point) -> Cell:
    speedup = point.speedup
    if math.isnan(speedup.ratio):
        return table.cell(MISSING, (speedup.reason,))
    return table.cell(number(speedup.ratio, 3), (speedup.method or speedup.reason,))


def _efficiency(table: Table, point: Point) -> Cell:
    middle, low, high = (100 * value for value in point.efficiency)
    if math.isnan(middle):
        return table.cell(MISSING, (point.speedup.reason,))
    text = f"{middle:.1f}" if math.isnan(low) else f"{middle:.1f} ({low:.1f} to {high:.1f})"
    if point.shared_cores is None:
        return table.cell(text, ())
    share = f"{point.shared_cores:.3g} %"
    return table.cell(text, (f"ranks on one machine share its cores, so that {share} is all there is to have",))


def _milliseconds(table: Table, seconds: float | None) -> Cell:
    if seconds is None:
        return table.cell(MISSING, ("the engine does not tell",))
    return Cell(number(1e3 * seconds, 3))
