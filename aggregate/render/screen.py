"""What the terminal shows: the answer and the six metrics on one screen, and the rest for who asks for it."""

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from aggregate.analysis.comparison import Comparison
from aggregate.analysis.sections import Section
from aggregate.render import answer, outline, systems, terminal, words
from aggregate.render.tables import MISSING, Row, Table, footnotes

READABLE = 100
"""Columns that a sentence takes at most: longer lines are hard to read."""
HEAD_WIDTH = 11
"""Columns of a metric's name, which goes on in a second line."""
LEAST_NAME = 24
"""Columns that the name of a run has at least."""
SAID = ("Driver", "Memory", "Power limit", "Commit", "Age")
"""Facts of a system that need their name beside them."""


def show(comparison: Comparison, console: Console, *, details: bool = False) -> None:
    """Print the answer and the six metrics of every section; with `details` everything else too."""
    ordered = [section for section, _ in answer.headline(comparison)]
    six = outline.six(comparison, ordered)
    say(console, answer.top(comparison))
    for piece in _six_metrics(six, [(section.words, len(section.runs)) for section in ordered], console):
        console.print(piece)
    say(console, _below(comparison, six, details=details))
    if details:
        _details(comparison, ordered, console)


def say(console: Console, sentences: Iterable[str]) -> None:
    """Print sentences, each on lines of a readable width; what has no width gets them unbroken."""
    for sentence in sentences:
        bounded = console.width < terminal.UNBOUNDED
        for line in textwrap.wrap(sentence, min(console.width, READABLE)) if bounded else [sentence]:
            console.print(terminal.plain(Text(line), console), soft_wrap=True)


def _below(comparison: Comparison, six: Table, *, details: bool) -> list[str]:
    """What must be known of the table on top, and where more is."""
    best = ["* the best of its column."] if any(cell.best for row in six.rows for cell in row.cells) else []
    texts = [" ".join([*best, *(f"{note}." for note in footnotes(six))])]
    if details:
        texts += six.more
    closing = []
    if count := len(comparison.earlier):
        what = "An earlier result is" if count == 1 else f"{count} earlier results are"
        closing.append(f"{what} left out (--all).")
    if not details:
        closing.append("--details: every figure, what else differs, the systems.")
    return [text for text in (*texts, " ".join(closing)) if text]


def _six_metrics(six: Table, groups: Sequence[tuple[str, int]], console: Console) -> Iterator[RichTable]:
    """The runs of all sections down, the six metrics across, in pieces where the console is narrower.

    Args:
        six: of all sections.
        groups: title of each section, and how many runs it has.
        console: where it is shown.
    """
    columns = [_column(row, console) for row in six.rows]
    width = min(console.width, READABLE)
    names = words.names(six.runs) if len(groups) == 1 else {run.letter: words.name(run) for run in six.runs}
    who = [(f"{head.text} {names[head.text]}", head.superscript) for head, _ in six.headers]
    while True:
        count = len(columns)
        while count > 1 and sum(column.width + 1 for column in columns[:count]) + LEAST_NAME > width:
            count -= 1
        shown, columns = columns[:count], columns[count:]
        room = max(LEAST_NAME, width - sum(column.width + 1 for column in shown))
        labels = [_fitting(name, terminal.worded(marks, console), room, console) for name, marks in who]
        gap = 2 if max(map(len, labels)) + len(shown) <= room else 1
        yield _grid(labels, shown, groups, gap)
        if not columns:
            return


@dataclass(frozen=True)
class _Column:
    """A metric as it is printed: its head, its cells, and which of these are best."""

    head: tuple[str, ...]
    cells: tuple[str, ...]
    best: tuple[bool, ...]

    @property
    def width(self) -> int:
        return max(map(len, (*self.head, *self.cells)))


def _column(row: Row, console: Console) -> _Column:
    cells = (f"{'*' * cell.best}{cell.text}{cell.superscript}" for cell in row.cells)
    return _Column(
        (*textwrap.wrap(row.label, HEAD_WIDTH), row.unit),
        tuple(terminal.worded(cell, console) for cell in cells),
        tuple(cell.best for cell in row.cells),
    )


def _fitting(name: str, marks: str, room: int, console: Console) -> str:
    """A name and its marks in so much room."""
    short = textwrap.shorten(terminal.worded(name, console), room - len(marks), placeholder=" ...")
    return f"{short}{marks}"


def _grid(labels: Sequence[str], columns: Sequence[_Column], groups: Sequence[tuple[str, int]], gap: int) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="", show_edge=False)
    grid.add_column(Text(""), no_wrap=True)
    for column in columns:
        grid.add_column(Text("\n".join(column.head), style="bold"), justify="right", no_wrap=True, vertical="bottom")
    at = iter(range(len(labels)))
    for title, count in groups:
        if len(groups) > 1:
            grid.add_row(Text(title, style="bold"))
        for i in itertools.islice(at, count):
            grid.add_row(Text(labels[i]), *(Text(column.cells[i], style="bold" * column.best[i]) for column in columns))
    return grid


def _details(comparison: Comparison, ordered: Sequence[Section], console: Console) -> None:
    """Everything else: what differs, ratios, scaling, every figure, losses, systems, and what is not compared."""
    for section in ordered:
        console.print()
        console.print(terminal.plain(Text(section.title, style="bold"), console))
        say(console, [text for text in (section.reason, *answer.of_section(comparison, section)) if text])
        say(console, filter(None, [answer.what_differs(section)]))
        console.print()
        for table in (*outline.subtables(comparison, section), outline.details(comparison, section)):
            terminal.show(table, console)
        say(console, answer.sentences(section, comparison.divergences[section.title]))
    _systems(systems.listing(comparison), console)
    say(console, answer.earlier(comparison))
    say(console, [answer.footer(comparison)])


def _systems(listing: systems.Listing, console: Console) -> None:
    """The systems, a line of facts a run: a table of so many columns is too wide for a terminal."""
    console.print(Text(listing.title, style="bold"))
    for letter, *facts in listing.lines:
        told = (f"{head} {fact}" if head in SAID else fact for head, fact in zip(listing.heads[1:], facts, strict=True)
                if fact != MISSING)  # fmt: skip
        say(console, [f"{letter}  {', '.join(told)}"])
