"""What a run shows: live on a terminal, plain lines elsewhere, or JSON lines for programs (docs/json-events.md)."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table


def duration(seconds: float) -> str:
    """Seconds as people say them: "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


FIGURES = {"images_per_second": "{:,.4g} images/s", "loss": "loss {:.3f}", "top1": "top-1 {:.1%}", "watts": "{:.3g} W"}
"""Figures that come with progress, as a person reads them, in this order."""


def in_words(figures: Mapping[str, float]) -> str:
    """The figures known by name as one line: "3,150 images/s, loss 4.100"."""
    return ", ".join(form.format(figures[name]) for name, form in FIGURES.items() if name in figures)


@dataclass
class Display:
    """Is told a plan, then phase after phase; `estimates` (seconds by phase title) may be corrected on the way.

    Attributes:
        live: whether somebody watches who would like to see a bar that moves.
    """

    estimates: dict[str, float] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _current: str = ""
    _started: float = 0.0
    live: bool = False

    def note(self, text: str) -> None:
        raise NotImplementedError

    def warn(self, text: str) -> None:
        raise NotImplementedError

    def plan(self, heading: str, finished: set[str]) -> None:
        """Show the phases to come with their estimates; `finished` ones are kept from an earlier try."""
        self._finished = finished

    def phase_starts(self, title: str) -> None:
        self._current, self._started = title, time.monotonic()

    def progress(self, done: float, text: str, **figures: float) -> None:
        """`done` runs from 0 to 1 over the current phase."""

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        """`verdict` says in a few words what was found and how sure it is."""
        self._finished.add(title)

    def result(self, path: str, failed: list[str]) -> None:
        """The run is over: its result lies at `path`, and these phases have failed."""
        raise NotImplementedError

    def ended(self, event: str, text: str) -> None:
        """The run is over without a result: "error" or "stopped", and why."""

    def close(self) -> None:
        """Take away what is there only for the moment; safe to call at any time."""

    def _remaining(self) -> float:
        return sum(seconds for title, seconds in self.estimates.items() if title not in self._finished)

    def _left(self, done: float) -> tuple[float, float]:
        """Seconds left of the current phase and of all."""
        spent, estimate = time.monotonic() - self._started, self.estimates[self._current]
        here = spent / done * (1 - done) if done > 0.05 else max(0.0, estimate - spent)
        return here, here + self._remaining() - estimate


class Screen(Display):
    """For people."""

    def __init__(self, console: Console) -> None:
        super().__init__(live=console.is_terminal)
        self.console = console
        self._bar: Progress | None = None

    def note(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    def plan(self, heading: str, finished: set[str]) -> None:
        super().plan(heading, finished)
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        table.add_column("phase")
        table.add_column("estimate", justify="right")
        for title, seconds in self.estimates.items():
            table.add_row(title, "done before" if title in finished else f"about {duration(seconds)}")
        table.add_row("all", f"about {duration(self._remaining())}", style="bold")
        self.console.print(table)

    def phase_starts(self, title: str) -> None:
        super().phase_starts(title)
        if not self.live:
            self.note(f"{title}: started, about {duration(self.estimates[title])}")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[eta]}"),
            TextColumn("{task.fields[text]}"),
        )
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._bar.add_task(title, total=1.0, eta="", text="")
        self._bar.start()

    def progress(self, done: float, text: str, **figures: float) -> None:
        if self._bar is None:
            return
        here, everywhere = self._left(done)
        eta = f"{duration(here)} left, {duration(everywhere)} in all"
        words = ", ".join(part for part in (text, in_words(figures)) if part)
        self._bar.update(self._bar.task_ids[0], completed=done, eta=eta, text=escape(words))

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        self.close()
        super().phase_ends(title, seconds, failure, verdict)
        mark = "[green]ok[/]" if failure is None else "[red]failed[/]"
        words = verdict if failure is None else failure
        self.console.print(
            f"{escape(title)}: {mark} after {duration(seconds)}{f': {escape(words)}' if words else ''}",
            soft_wrap=True,
            highlight=False,
        )

    def result(self, path: str, failed: list[str]) -> None:
        self.note(f"Result: {path}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class JsonEvents(Display):
    """For programs: one JSON object a line, written at once; docs/json-events.md says what each holds."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__()
        self._out, self._begun = out, time.monotonic()

    def _write(self, event: str, **fields: Any) -> None:
        elapsed = round(time.monotonic() - self._begun, 3)
        self._out.write(json.dumps({"event": event, "elapsed_seconds": elapsed, **fields}, allow_nan=False) + "\n")
        self._out.flush()

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def warn(self, text: str) -> None:
        self._write("warning", text=text)

    def plan(self, heading: str, finished: set[str]) -> None:
        super().plan(heading, finished)
        phases = [
            {"phase": title, "estimate_seconds": seconds, "done": title in finished}
            for title, seconds in self.estimates.items()
        ]
        self._write("plan", text=heading, phases=phases, remaining_seconds=self._remaining())

    def phase_starts(self, title: str) -> None:
        super().phase_starts(title)
        self._write("phase_start", phase=title, estimate_seconds=self.estimates[title])

    def progress(self, done: float, text: str, **figures: float) -> None:
        here, everywhere = self._left(done)
        self._write(
            "progress", phase=self._current, done=done, text=text, figures=figures, phase_remaining_seconds=here,
            remaining_seconds=everywhere,
        )  # fmt: skip

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        super().phase_ends(title, seconds, failure, verdict)
        self._write(
            "phase_end", phase=title, seconds=seconds, status="ok" if failure is None else "failed", reason=failure,
            verdict=verdict or None,
        )  # fmt: skip

    def result(self, path: str, failed: list[str]) -> None:
        self._write("result", path=path, failed=failed)

    def ended(self, event: str, text: str) -> None:
        self._write(event, text=text)
