"""Tables on the terminal, as wide as that is."""

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from aggregate.render.tables import Table, footnotes

UNBOUNDED = 100_000
"""Width of what has no width."""


PLAIN = str.maketrans({
    "\N{EN DASH}": "-", "\N{MINUS SIGN}": "-", "\N{MIDDLE DOT}": "/", "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MULTIPLICATION SIGN}": "x", "\N{REPLACEMENT CHARACTER}": "?",
})  # fmt: skip
"""Signs of the tables, in ASCII."""
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def plain(text: Text, console: Console) -> Text:
    """`text` in ASCII where the console has no more."""
    return Text(worded(text.plain, console), style=text.style, justify=text.justify)


def worded(text: str, console: Console) -> str:
    """The same of a string: a raised 12 is [12] then."""
    if not console.options.ascii_only:
        return text
    return RAISED.sub(lambda digits: f"[{digits[0].translate(LOWERED)}]", text).translate(PLAIN)


def show(table: Table, console: Console) -> None:
    """Print a table, in pieces where the console is narrower; a console that is no terminal gets it whole."""
    console.print(plain(Text(table.title, style="bold"), console))
    if table.reason:
        console.print(plain(Text(table.reason), console))
    for columns in _columns_that_fit(table, console):
        console.print()
        console.print(_grid(table, columns, console))
    console.print()
    for note in footnotes(table):
        console.print(plain(Text(note, style="dim"), console))
    for note in table.more:
        console.print(plain(Text(note, style="dim"), console))
    console.print()


def _grid(table: Table, columns: Sequence[int], console: Console) -> RichTable:
    """The given columns of a table for the terminal; numbers are aligned as if their marks took no room."""
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="", show_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="dim")
    height = max(len(table.headers[i][1]) for i in columns)
    for i in columns:
        head, lines = table.headers[i]
        lines = [*lines[:-1], *[""] * (height - len(lines)), lines[-1]]
        title = Text.assemble((head.text, "bold"), " " if head.marks else "", head.superscript)
        lines_below = [plain(Text(line), console) for line in lines]
        grid.add_column(Text("\n").join([plain(title, console), *lines_below]), justify="right", no_wrap=True)
    margins = {i: max((len(row.cells[i].superscript) for row in table.rows), default=0) for i in columns}
    for index, row in enumerate(table.rows):
        if row.starts and index:
            grid.add_section()
        cells = (Text(row.cells[i].text + row.cells[i].superscript.ljust(margins[i])) for i in columns)
        grid.add_row(Text(row.label), Text(row.unit), *(plain(cell, console) for cell in cells))
    return grid


def _columns_that_fit(table: Table, console: Console) -> Iterator[list[int]]:
    """The columns in groups of as many as the console is wide, at least one."""
    unbounded = console.options.update(max_width=UNBOUNDED)

    def fits(columns: Sequence[int]) -> bool:
        return Measurement.get(console, unbounded, _grid(table, columns, console)).maximum <= console.width

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
