"""What the terminal shows: one screen, on any terminal."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aggregate.analysis.comparison import Comparison, compare
from aggregate.analysis.reading import load
from aggregate.analysis.result import Result
from aggregate.render import mine, screen
from aggregate.render.terminal import UNBOUNDED
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result
from shared_spec.results import format

RESULTS = Path(__file__).parents[3] / "results"


def compared(*contents: dict[str, Any]) -> Comparison:
    return compare([Result(f"{i}.json", format.parse(content)) for i, content in enumerate(contents)], [], PRICES)


def shown(comparison: Comparison, width: int = 100, *, details: bool = False, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    screen.show(comparison, Console(width=width, file=file, highlight=False), details=details)
    written = file.buffer
    assert isinstance(written, io.BytesIO)
    return written.getvalue().decode(encoding)


@pytest.fixture(scope="module")
def committed() -> Comparison:
    loaded = load([RESULTS])
    return compare(loaded.results, loaded.problems, PRICES)


def test_a_dozen_results_fit_a_screen_of_100_by_40(committed: Comparison) -> None:
    lines = shown(committed).splitlines()
    assert len(lines) < 45  # the committed results are of thirteen systems
    assert max(map(len, lines)) <= 100
    devices = {
        "mlx": ("Apple M4", "Apple M2 Pro"), "tf-cuda": ("NVIDIA GeForce RTX 4070", "NVIDIA GeForce RTX 3090"),
        "torch-ipex": ("Intel(R) Core(TM) i7-14700K", "Intel(R) Core(TM) Ultra 7 265K"),
    }  # fmt: skip
    dozen = [
        make_result(name, precision=precision, device_name=device, phases=FULL_PHASES)
        for name, both in devices.items()
        for precision in ("fp32", "bf16")
        for device in both
    ]
    lines = shown(compared(*dozen)).splitlines()
    assert len(lines) < 40  # a line is left for where the report is
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(committed: Comparison, width: int) -> None:
    text = shown(committed, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_a_pipe_gets_sentences_unbroken(committed: Comparison) -> None:
    assert shown(committed, UNBOUNDED).splitlines()[0].endswith(".")


def test_a_terminal_without_unicode_gets_words_and_brackets(committed: Comparison) -> None:
    text = shown(committed, encoding="ascii", details=True)
    assert "?" not in text
    assert re.search(r"\[1\]", text)


def test_details_have_every_figure_what_differs_and_the_systems(committed: Comparison) -> None:
    short, text = shown(committed, UNBOUNDED), shown(committed, UNBOUNDED, details=True)
    for words in (
        "Step time, p90",
        "Not only the machines differ",
        "Systems",
        "Made by deit-bench aggregate",
        "Speed against",
    ):
        assert words in text
        assert words not in short


def test_best_first_and_the_best_of_a_column_marked() -> None:
    text = shown(compared(*(make_result(name, repeats=2) for name in ("mlx", "tf-cuda", "torch-ipex"))))
    rows = [line for line in text.splitlines() if re.match(r"[ABC] ", line)]
    assert [row.split()[1] for row in rows] == ["TensorFlow", "MLX", "PyTorch"]
    assert rows[0].count("*") == 3
    assert "*" not in rows[1] + rows[2]
    assert "*" not in shown(compared(make_result("mlx")))  # nobody is best who is alone


def test_the_owner_reads_how_the_machine_stands() -> None:
    comparison = compared(make_result("mlx", phases=FULL_PHASES), make_result("tf-cuda", phases=FULL_PHASES))
    told = mine.lines(comparison, next(run for run in comparison.runs if run.content.platform == "mlx"))
    assert told[0].startswith("This machine: MLX on Apple M4 Max, fp32, quick; 1 other")
    assert re.search(
        r"^Training +\d+ images/s: second of 2; TensorFlow on NVIDIA H200 is 1\d.* times as fast as this", told[2]
    )
    assert (
        sum(
            line.startswith(("Training", "One image", "Many images", "Memory", "To the target", "  its"))
            for line in told
        )
        == 6
    )


def test_what_was_not_measured_comes_with_the_command_that_helps() -> None:
    content = make_result("mlx")
    for outcome in content["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["energy"] |= {
                "joules": None,
                "reason": "no meter; `sudo make it` helps",
                "samples": 0,
            }
    comparison = compared(content)
    told = mine.lines(comparison, comparison.runs[0])
    assert any("`make bench PROFILE=full PRECISION=fp32` measures it." in line for line in told)
    assert any(line.startswith("Not measured: power: no meter; `sudo make it` helps") for line in told)


def test_any_committed_result_is_told_in_25_lines(committed: Comparison) -> None:
    for run in committed.runs:
        file = io.StringIO()
        screen.say(Console(width=80, file=file, highlight=False), mine.lines(committed, run))
        assert 5 <= len(file.getvalue().splitlines()) <= 24  # and one line for where the report is
