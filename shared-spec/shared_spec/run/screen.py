"""What a run shows: live on a terminal, plain lines elsewhere, or JSON lines for programs (docs/json-events.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from shared_spec.measure.clock import Clock, monotonic
from shared_spec.run.plan import Left


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


@dataclass(frozen=True)
class PlannedRow:
    """A line of the plan: a phase, how many seconds it takes, and whether an earlier start of this run has done it."""

    title: str
    seconds: float
    done: bool


class Display:
    """Is told a plan, then phase after phase, with what is left of each.

    Args:
        live: whether somebody watches who would like to see a bar that moves.
    """

    def __init__(self, live: bool = False) -> None:
        self.live = live

    def note(self, text: str) -> None:
        raise NotImplementedError

    def warn(self, text: str) -> None:
        raise NotImplementedError

    def plan(self, heading: str, rows: Sequence[PlannedRow], seconds: float) -> None:
        """Show the phases to come, and the `seconds` that those take which are not done."""
        raise NotImplementedError

    def phase_starts(self, title: str, seconds: float) -> None:
        """A phase starts that takes about so long."""
        raise NotImplementedError

    def progress(self, title: str, done: float, text: str, figures: Mapping[str, float], left: Left) -> None:
        """`done` runs from 0 to 1 over the phase under way."""
        raise NotImplementedError

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        """`verdict` says in a few words what was found and how sure it is."""
        raise NotImplementedError

    def result(self, path: str, failed: list[str]) -> None:
        """The run is over: its result lies at `path`, and these phases have failed."""
        raise NotImplementedError

    def ended(self, event: str, text: str) -> None:
        """The run is over without a result: "error" or "stopped", and why."""

    def close(self) -> None:
        """Take away what is there only for the moment; safe to call at any time."""


QUIET_SECONDS = 30.0
"""Where no bar moves, a line says so often how far a phase is."""


class Screen(Display):
    """For people.

    Args:
        live: whether a bar may move; where it is left out, on a terminal.
    """

    def __init__(self, console: Console, live: bool | None = None, clock: Clock = monotonic) -> None:
        super().__init__(live=console.is_terminal if live is None else live)
        self.console, self._clock = console, clock
        self._bar: Progress | None = None
        self._spoken = clock()

    def note(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    def plan(self, heading: str, rows: Sequence[PlannedRow], seconds: float) -> None:
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        table.add_column("phase")
        table.add_column("estimate", justify="right")
        for row in rows:
            table.add_row(row.title, "done before" if row.done else f"about {duration(row.seconds)}")
        table.add_row("all", f"about {duration(seconds)}", style="bold")
        self.console.print(table)

    def phase_starts(self, title: str, seconds: float) -> None:
        if not self.live:
            self._spoken = self._clock()
            self.note(f"{title}: started, about {duration(seconds)}")
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

    def progress(self, title: str, done: float, text: str, figures: Mapping[str, float], left: Left) -> None:
        eta = f"{duration(left.phase)} left, {duration(left.run)} in all"
        words = ", ".join(part for part in (text, in_words(figures)) if part)
        if self._bar is None:
            if self._clock() - self._spoken >= QUIET_SECONDS:
                self._spoken = self._clock()
                self.note(f"{title}: {done:.0%}, {words}; {eta}")
            return
        self._bar.update(self._bar.task_ids[0], completed=done, eta=eta, text=escape(words))

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        self.close()
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
        self._out, self._begun = out, monotonic()

    def _write(self, event: str, **fields: Any) -> None:
        elapsed = round(monotonic() - self._begun, 3)
        self._out.write(json.dumps({"event": event, "elapsed_seconds": elapsed, **fields}, allow_nan=False) + "\n")
        self._out.flush()

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def warn(self, text: str) -> None:
        self._write("warning", text=text)

    def plan(self, heading: str, rows: Sequence[PlannedRow], seconds: float) -> None:
        phases = [{"phase": row.title, "estimate_seconds": row.seconds, "done": row.done} for row in rows]
        self._write("plan", text=heading, phases=phases, remaining_seconds=seconds)

    def phase_starts(self, title: str, seconds: float) -> None:
        self._write("phase_start", phase=title, estimate_seconds=seconds)

    def progress(self, title: str, done: float, text: str, figures: Mapping[str, float], left: Left) -> None:
        self._write(
            "progress", phase=title, done=done, text=text, figures=figures, phase_remaining_seconds=left.phase,
            remaining_seconds=left.run,
        )  # fmt: skip

    def phase_ends(self, title: str, seconds: float, failure: str | None, verdict: str) -> None:
        self._write(
            "phase_end", phase=title, seconds=seconds, status="ok" if failure is None else "failed", reason=failure,
            verdict=verdict or None,
        )  # fmt: skip

    def result(self, path: str, failed: list[str]) -> None:
        self._write("result", path=path, failed=failed)

    def ended(self, event: str, text: str) -> None:
        self._write(event, text=text)
