"""Tables as a terminal and a pipe get them."""

import io
import re

import pytest
from rich.console import Console

from aggregate.render import terminal
from aggregate.render.tables import Table
from aggregate.tests.factory import make_result, table_of

LONG = "AMD Ryzen Threadripper PRO 7995WX 96-Cores Workstation Processor with Radeon Graphics and a very long name"


def shown(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    terminal.show(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_every_column_whole() -> None:
    text = shown(
        table_of(*(make_result(engine=f"engine-{i}", device_name=LONG) for i in range(12))), terminal.UNBOUNDED
    )
    assert "…" not in text.replace(" …", "")
    assert text.count("Training throughput") == 1
    assert all(f"engine-{i}" in text for i in range(12))


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_gets_pieces_that_fit(width: int) -> None:
    text = shown(table_of(*(make_result(engine=f"engine-{i}", device_name=LONG, repeats=2) for i in range(6))), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace(" …", "")
    assert text.count("Latency samples") == len(re.findall(r"^Training throughput", text, re.MULTILINE)) > 0
    assert all(f"engine-{i} " in text for i in range(6))
