"""The comparison as a table: on the terminal, as Markdown, and as CSV for other programs."""

import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from aggregate import metrics
from aggregate.compare import Run
from aggregate.metrics import METRIC, METRICS, Metric
from aggregate.ratios import FASTER_IS, Ratio

MISSING = "\N{EN DASH}"
HEADLINE = (
    "training_throughput",
    "latency_median",
    "latency_p90",
    "inference_best",
    "peak_memory",
    "target_reached",
    "time_to_target",
    "cost_to_target",
    "cost_full",
    "electricity_to_target",
    "electricity_full",
    "power",
    "energy_per_image",
)
"""The benchmark's six metrics: throughput, inference, memory, convergence, cost and power."""
ONLY_IN_FILES = ("batch_throughput", "batch_memory")
"""Figures that the CSV file and the plots have, and no table: every run has batches of its own."""
UNBOUNDED = 100_000
"""Width of what has no width."""
HEADER_WIDTH = 16
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """Text and the numbers of its footnotes."""

    text: str
    marks: tuple[int, ...] = ()

    @property
    def superscript(self) -> str:
        return " ".join(str(mark).translate(SUPERSCRIPT) for mark in self.marks)


@dataclass(frozen=True)
class Row:
    """`starts` says whether a new phase begins here."""

    label: str
    unit: str
    cells: tuple[Cell, ...]
    starts: bool


@dataclass
class Table:
    """Metrics down, runs across; a header is lines of text of which the first carries the marks.

    Attributes:
        notes: the footnotes; the first has number 1.
        runs: what the columns stand for.
    """

    title: str
    reason: str
    runs: tuple[Run, ...]
    headers: list[tuple[Cell, list[str]]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cell(self, text: str, notes: Sequence[str]) -> Cell:
        """A cell with footnotes; equal ones share a number."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
        return Cell(text, tuple(sorted({self.notes.index(note) + 1 for note in notes})))


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
    if not metric.unit and value == round(value):  # a count
        return f"{value:,.0f}"
    return number(value, metric.digits)


def heading(run: Run) -> list[str]:
    """What ran, in lines that fit a column."""
    c = run.content
    synthetic = " · synthetic" if c["data"]["source"] == "synthetic" else ""
    return [
        *textwrap.wrap(c["platform"], HEADER_WIDTH),
        *textwrap.wrap(f"{c['engine']} · {c['precision']}", HEADER_WIDTH),
        *(
            line
            for part in run.hardware.parts
            for line in textwrap.wrap(part, HEADER_WIDTH, max_lines=3, placeholder=" …")
        ),
        *filter(None, [run.ranks.words]),
        f"{', '.join(run.profiles)}{synthetic}",
        *([f"{len(run.results)} runs"] if len(run.results) > 1 else []),
    ]


Found = dict[tuple[str, str], list[dict[str, Any]]]
"""Records of the summary by run letter and metric: one, or one per batch size."""


def build(title: str, reason: str, runs: Sequence[Run], summary: pd.DataFrame, keys: Sequence[str] = ()) -> Table:
    """The table of `runs` from the data frame of aggregate.compare.summary.

    Args:
        keys: the metrics to show; none means all of the phases that any of the runs had.
    """
    table = Table(title, reason, tuple(runs))
    table.headers = [(table.cell(run.letter, run.notes), heading(run)) for run in runs]
    found: Found = defaultdict(list)
    for record in summary.to_dict("records"):
        found[record["run"], record["metric"]].append({str(key): value for key, value in record.items()})
    phase = ""
    for metric in METRICS:
        if metric.key in ONLY_IN_FILES or not (metric.key in keys if keys else _has_run(found, metric)):
            continue
        for label, unit, cells in _lines(table, metric, found):
            table.rows.append(Row(label, unit, tuple(cells), starts=metric.phase != phase))
            phase = metric.phase
    return table


def of_ratios(title: str, runs: Sequence[Run], baseline: Run, found: Mapping[tuple[str, str], Ratio]) -> Table:
    """How many times as fast as the baseline each other run is, with interval and verdict."""
    others = [run for run in runs if run is not baseline]
    table = Table(title, "", tuple(others))
    table.headers = [(Cell(run.letter), heading(run)) for run in others]
    for i, key in enumerate(FASTER_IS):
        if not all(math.isnan(found[run.letter, key].ratio) for run in others):
            cells = [_ratio_cell(table, found[run.letter, key]) for run in others]
            table.rows.append(Row(METRIC[key].title, "", tuple(cells), starts=i == 0))
    return table


def _ratio_cell(table: Table, ratio: Ratio) -> Cell:
    if math.isnan(ratio.ratio):
        return table.cell(MISSING, (ratio.reason,))
    times = f"{number(ratio.ratio, 3)}x"
    if not ratio.verdict:
        return table.cell(times, (ratio.reason,))
    return table.cell(f"{times} ({number(ratio.low, 3)} to {number(ratio.high, 3)}) {ratio.verdict}", (ratio.method,))


def _has_run(found: Found, metric: Metric) -> bool:
    of_metric = [record for (_, key), records in found.items() if key == metric.key for record in records]
    return not all(record["reason"].endswith(metrics.NOT_RUN) for record in of_metric)


def _lines(table: Table, metric: Metric, found: Found) -> Iterator[tuple[str, str, list[Cell]]]:
    """The rows of one metric as (label, unit, cells)."""
    of_run = [(run, found[run.letter, metric.key]) for run in table.runs]
    if metric.key == "inference_throughput":
        batches = {r["batch_size"] for _, records in of_run for r in records if not pd.isna(r["batch_size"])}
        for batch in sorted(batches):
            yield (
                f"{metric.title} {batch:,}",
                metric.unit,
                [_cell(table, _at(batch, run, records)) for run, records in of_run],
            )
        return
    title = metric.title
    if metric.key == "training_throughput":
        title += f", batch {table.runs[0].result.spec.training.batch_size:,}"
        if any(run.ranks.scaling == "weak" for run in table.runs):
            title += " (a rank, where weak)"
    unit = next((records[0]["unit"] for _, records in of_run if records[0]["unit"]), "")
    yield title, unit, [_cell(table, records[0]) for _, records in of_run]
    if metric.key == "training_throughput" and any(records[0]["repeats"] > 1 for _, records in of_run):
        yield "  lowest to highest repeat", metric.unit, [_range(records[0]) for _, records in of_run]


def _at(batch: int, run: Run, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of one batch size, or one that says why there is none."""
    exact = [record for record in records if not pd.isna(record["batch_size"]) and record["batch_size"] == batch]
    if exact:
        return exact[0]
    if all(pd.isna(record["batch_size"]) for record in records):
        return records[0]
    return {"value": math.nan, "reason": metrics.untried(run.results, run.profiles)}


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


def _footnotes(table: Table) -> list[str]:
    return [f"{str(i).translate(SUPERSCRIPT)} {note}" for i, note in enumerate(table.notes, 1)]


def _grid(table: Table, columns: Sequence[int]) -> RichTable:
    """The given columns of a table for the terminal; numbers are aligned as if their marks took no room."""
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", show_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="dim")
    height = max(len(table.headers[i][1]) for i in columns)
    for i in columns:
        head, lines = table.headers[i]
        lines = [*lines[:-1], *[""] * (height - len(lines)), lines[-1]]
        title = Text.assemble((head.text, "bold"), " " if head.marks else "", head.superscript)
        grid.add_column(Text("\n").join([title, *map(Text, lines)]), justify="right", no_wrap=True)
    margins = {i: max(len(row.cells[i].superscript) for row in table.rows) for i in columns}
    for index, row in enumerate(table.rows):
        if row.starts and index:
            grid.add_section()
        cells = (Text(row.cells[i].text + row.cells[i].superscript.ljust(margins[i])) for i in columns)
        grid.add_row(Text(row.label), Text(row.unit), *cells)
    return grid


def _columns_that_fit(table: Table, console: Console) -> Iterator[list[int]]:
    """The columns in groups of as many as the console is wide, at least one."""

    unbounded = console.options.update(max_width=UNBOUNDED)

    def fits(columns: Sequence[int]) -> bool:
        return Measurement.get(console, unbounded, _grid(table, columns)).maximum <= console.width

    left = list(range(len(table.runs)))
    if fits(left):
        yield left
        return
    while left:
        count = 1
        while count < len(left) and fits(left[: count + 1]):
            count += 1
        yield left[:count]
        left = left[count:]


def show(table: Table, console: Console) -> None:
    """Print a table, in pieces where the console is narrower; a console that is no terminal gets it whole."""
    console.print(Text(table.title, style="bold"))
    if table.reason:
        console.print(Text(table.reason))
    for columns in _columns_that_fit(table, console):
        console.print()
        console.print(_grid(table, columns))
    console.print()
    for note in _footnotes(table):
        console.print(Text(note, style="dim"))
    console.print()


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it is: no markup, no HTML, no link and no table cell of its own."""
    escaped = re.sub(r"([\\`*_\[\]<>|~$!#&@])", r"\\\1", text)
    return re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)", r"\\", escaped, flags=re.IGNORECASE)


def markdown(table: Table) -> str:
    """A table as GitHub-flavoured Markdown with its footnotes below."""

    def marked(cell: Cell) -> str:
        return escape_markdown(cell.text) + (f" {cell.superscript}" if cell.marks else "")

    headers = ["<br>".join([f"**{marked(head)}**", *map(escape_markdown, lines)]) for head, lines in table.headers]
    lines = [["", "", *headers], ["---", "---", *(["---:"] * len(headers))]]
    lines += [[escape_markdown(row.label.strip()), row.unit, *map(marked, row.cells)] for row in table.rows]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([grid, "\n".join(f"{escape_markdown(note)}<br>" for note in _footnotes(table))]).strip() + "\n"


def _harmless(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front, as OWASP advises."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def csv(summary: pd.DataFrame) -> str:
    """The data frame of aggregate.compare.summary as CSV; several notes of a figure are joined by "; "."""
    flat = summary.assign(notes=summary["notes"].map("; ".join))
    for column in flat.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in flat.dtypes]]:
        flat[column] = flat[column].map(_harmless)
    return flat.to_csv(index=False, lineterminator="\n")
