"""What the terminal shows: the answer and the six metrics on one screen, and the rest for who asks for it."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from aggregate.analysis.comparison import Comparison
from aggregate.analysis.sections import Section
from aggregate.render import answer, outline, systems, terminal, words
from aggregate.render.tables import MISSING, Table, footnotes

READABLE = 100
"""Columns that a sentence takes at most: longer lines are hard to read."""
LEAST_NAME = 24
"""Columns that the name of a run has at least."""
SAID = ("Driver", "Memory", "Power limit", "Commit", "Age")
"""Facts of a system that need their name beside them."""


def show(comparison: Comparison, console: Console, *, details: bool = False) -> None:
    """Print the answer and the six metrics of every section; with `details` everything else too."""
    ordered = [section for section, _ in answer.headline(comparison)]
    six = outline.six(comparison, ordered)
    say(console, answer.top(comparison))
    console.print()
    console.print(_six_metrics(six, [(section.words, len(section.runs)) for section in ordered], console))
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


def _six_metrics(six: Table, groups: Sequence[tuple[str, int]], console: Console) -> RichTable:
    """The runs of all sections down, the six metrics across.

    Args:
        six: of all sections.
        groups: title of each section, and how many runs it has.
        console: where it is shown.
    """
    heads = [(*textwrap.wrap(row.label, 11), row.unit) for row in six.rows]
    texts = [[f"{'*' * cell.best}{cell.text}{cell.superscript}" for cell in row.cells] for row in six.rows]
    taken = sum(max(map(len, [*lines, *column])) + 1 for lines, column in zip(heads, texts, strict=True))
    room = max(LEAST_NAME, min(READABLE, console.width) - taken)
    names = words.names(six.runs) if len(groups) == 1 else {run.letter: words.name(run) for run in six.runs}
    longest = max(len(f"{head.text} {names[head.text]}{head.superscript}") for head, _ in six.headers)
    gap = 2 if longest + len(heads) <= room else 1
    grid = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="", show_edge=False)
    grid.add_column(Text(""), no_wrap=True)
    for lines in heads:
        grid.add_column(Text("\n".join(lines), style="bold"), justify="right", no_wrap=True, vertical="bottom")
    at = iter(range(len(six.runs)))
    for title, count in groups:
        if len(groups) > 1:
            grid.add_row(Text(title, style="bold"))
        for i in itertools.islice(at, count):
            head = six.headers[i][0]
            who = textwrap.shorten(f"{head.text} {names[head.text]}", room - len(head.superscript), placeholder=" …")
            line = [Text(f"{who}{head.superscript}")]
            line += [
                Text(column[i], style="bold" * row.cells[i].best) for column, row in zip(texts, six.rows, strict=True)
            ]
            grid.add_row(*(terminal.plain(text, console) for text in line))
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
