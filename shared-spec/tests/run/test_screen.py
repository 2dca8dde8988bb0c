"""What people and programs are told."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from shared_spec.run.plan import Left
from shared_spec.run.screen import Display, JsonEvents, PlannedRow, Screen, duration, in_words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (-3, "0 s")]
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_figures_in_words() -> None:
    figures = {"watts": 431.7, "top1": 0.4512, "loss": 3.14159, "images_per_second": 3150.4, "other": 1.0}
    assert in_words(figures) == "3,150 images/s, loss 3.142, top-1 45.1%, 432 W"
    assert in_words({}) == ""


def through(display: Display) -> None:
    """A run of two phases, the second of which fails."""
    rows = [PlannedRow("ceiling", 10.0, True), PlannedRow("training 1", 40.0, False)]
    display.plan("mlx (mlx) on gpu", rows, 40.0)
    display.warn("the machine was busy [at] the start")
    display.phase_starts("training 1", 40.0)
    display.progress("training 1", 0.5, "steps", {"images_per_second": 100.0, "loss": 4.5}, Left(12.0, 12.0))
    display.phase_ends("training 1", 12.0, "out of memory", "")
    display.result("results/x.json", ["training"])


def test_without_a_terminal_there_are_plain_lines_and_no_bar() -> None:
    out = io.StringIO()
    through(Screen(Console(file=out, width=80)))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "warning: the machine was busy [at] the start" in text
    assert "training 1: started, about 40 s" in text
    assert "training 1: failed after 12 s: out of memory" in text
    assert "images/s" not in text  # progress is for those who watch


def test_on_a_terminal_the_bar_shows_figures_and_what_is_left() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=160, force_terminal=True))
    screen.plan("x", [PlannedRow("training 1", 40.0, False)], 40.0)
    screen.phase_starts("training 1", 40.0)
    figures = {"images_per_second": 100.0, "loss": 4.5, "watts": 55.0}
    screen.progress("training 1", 0.5, "epoch 2", figures, Left(20.0, 80.0))
    assert screen._bar is not None
    fields = screen._bar.tasks[0].fields
    screen.close()
    assert fields["text"] == "epoch 2, 100 images/s, loss 4.500, 55 W"
    assert fields["eta"] == "20 s left, 1 min 20 s in all"


def test_events_are_one_json_object_a_line() -> None:
    out = io.StringIO()
    through(JsonEvents(out))
    events: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        "plan", "warning", "phase_start", "progress", "phase_end", "result",
    ]  # fmt: skip
    assert all(event["elapsed_seconds"] >= 0 for event in events)
    plan, _, start, progress, end, result = events
    assert plan["phases"][0] == {"phase": "ceiling", "estimate_seconds": 10.0, "done": True}
    assert plan["remaining_seconds"] == 40.0
    assert start == {"event": "phase_start", "phase": "training 1", "estimate_seconds": 40.0} | {
        "elapsed_seconds": start["elapsed_seconds"]
    }
    assert progress["figures"] == {"images_per_second": 100.0, "loss": 4.5}
    assert (progress["phase_remaining_seconds"], progress["remaining_seconds"]) == (12.0, 12.0)
    assert (end["status"], end["reason"], end["verdict"]) == ("failed", "out of memory", None)
    assert (result["path"], result["failed"]) == ("results/x.json", ["training"])
