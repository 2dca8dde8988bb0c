"""What phase processes tell their parent while they work: JSON lines through a pipe; and what their log says last."""

import contextlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Progress

INTERVAL_SECONDS = 0.1
"""Least time between two events of a process, so that telling costs nothing."""


def reporter(pipe: IO[str]) -> Progress:
    """A Progress that tells the parent at the other end of `pipe`."""
    last = -math.inf

    def report(done: float, text: str, **figures: float) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= INTERVAL_SECONDS:
            last = now
            with contextlib.suppress(OSError):
                pipe.write(json.dumps({"done": done, "text": text, "figures": figures}) + "\n")

    return report


def introduce(pipe: IO[str]) -> None:
    """Tell the parent this process's id: it has not started a rank itself."""
    pipe.write(json.dumps({"pid": os.getpid()}) + "\n")


class Listener:
    """Understands what comes through a pipe, and passes progress on.

    Attributes:
        pids: of the processes that have introduced themselves.
    """

    def __init__(self, progress: Progress) -> None:
        self.pids: set[int] = set()
        self._progress, self._incomplete = progress, b""

    def hear(self, data: bytes) -> None:
        """Take what was read from the pipe, which may end in the middle of a line."""
        *lines, self._incomplete = (self._incomplete + data).split(b"\n")
        for line in lines:
            event = _parsed(line)
            if isinstance(event, int):
                self.pids.add(event)
            elif event is not None:
                self._progress(event.done, event.text, **event.figures)


@dataclass(frozen=True)
class _Event:
    """What a Progress is called with."""

    done: float
    text: str
    figures: dict[str, float]


def _parsed(line: bytes) -> _Event | int | None:
    """An event, or the id of a process that introduces itself; None for a line that is neither.

    A kill cuts a line short, and lines of two ranks may run together.
    """
    try:
        content = json.loads(line)
        if "pid" in content:
            return int(content["pid"])
        figures = {str(name): float(value) for name, value in content["figures"].items()}
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        return _Event(float(content["done"]), str(content["text"]), finite)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def last_words(log: Path) -> str:
    """The last line of a log that says something; "none" where no line does."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "none")
