"""What a run shows: live with progress and ETA on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass, field

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


@dataclass
class Screen:
    """Shows a plan, then phase after phase; `estimates` (seconds by phase title) may be corrected on the way."""

    console: Console
    estimates: dict[str, float] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _bar: Progress | None = None
    _current: str = ""
    _started: float = 0.0

    def note(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    def plan(self, heading: str, finished: set[str]) -> None:
        """Show the phases to come with their estimates; `finished` ones are kept from an earlier try."""
        self._finished = finished
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        table.add_column("phase")
        table.add_column("estimate", justify="right")
        for title, seconds in self.estimates.items():
            table.add_row(title, "done before" if title in finished else f"about {duration(seconds)}")
        table.add_row("all", f"about {duration(self._remaining())}", style="bold")
        self.console.print(table)

    def _remaining(self) -> float:
        return sum(seconds for title, seconds in self.estimates.items() if title not in self._finished)

    def phase_starts(self, title: str) -> None:
        self._current, self._started = title, time.monotonic()
        if not self.console.is_terminal:
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

    def progress(self, done: float, text: str) -> None:
        """`done` runs from 0 to 1 over the current phase."""
        if self._bar is None:
            return
        spent = time.monotonic() - self._started
        here = spent / done * (1 - done) if done > 0.05 else max(0.0, self.estimates[self._current] - spent)
        later = self._remaining() - self.estimates[self._current]
        eta = f"{duration(here)} left, {duration(here + later)} in all"
        self._bar.update(self._bar.task_ids[0], completed=done, eta=eta, text=escape(text))

    def phase_ends(self, title: str, seconds: float, failure: str | None) -> None:
        self.close()
        self._finished.add(title)
        mark = "[green]ok[/]" if failure is None else "[red]failed[/]"
        reason = "" if failure is None else f": {escape(failure)}"
        self.console.print(
            f"{escape(title)}: {mark} after {duration(seconds)}{reason}", soft_wrap=True, highlight=False
        )

    def close(self) -> None:
        """Take the live bar away; safe to call at any time."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
