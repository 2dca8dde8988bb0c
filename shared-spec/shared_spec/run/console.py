"""Where a run's words go: a terminal, a log, a pipe, whatever the environment says of it."""

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, cast

from rich.console import Console

from shared_spec.run.screen import Screen

EXIT_NO_READER = 141
"""Exit status where nobody reads any more, as in `| head`: what a shell says of a command that SIGPIPE has ended."""
LOG_WIDTH = 160
"""Columns of a table where no terminal bounds it."""


def let_all_be_written() -> None:
    r"""Have stdout and stderr take every character: what they cannot hold is written as \xe9 instead of ending all."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """End as other commands do; rich would with status 1, which means that a phase has failed."""
        leave_quietly()


def of(stream: IO[str], environ: Mapping[str, str] = os.environ) -> Console:
    """A console on `stream`.

    FORCE_COLOR asks for colours, and does not make a terminal of a log: cursor codes and its width are not for files.
    """
    terminal = is_terminal(stream)
    coloured = terminal or bool(environ.get("FORCE_COLOR"))
    width = None if terminal or environ.get("COLUMNS", "").isdecimal() else LOG_WIDTH
    return _Console(file=lasting(stream), force_terminal=coloured, width=width, _environ=dict(environ))


def screen(stream: IO[str], environ: Mapping[str, str] = os.environ) -> Screen:
    """The screen of a run: live on a terminal that can move its cursor."""
    live = is_terminal(stream) and environ.get("TERM", "") not in ("", "dumb", "unknown")
    return Screen(of(stream, environ), live)


def is_terminal(stream: IO[str]) -> bool:
    """Whether somebody sees what is written now."""
    try:
        return stream.isatty()
    except (ValueError, OSError, AttributeError):
        return False


def lasting(stream: IO[str]) -> IO[str]:
    """`stream`, which ends nothing when it is lost."""
    return stream if isinstance(stream, Lasting) else cast(IO[str], Lasting(stream))


class Lasting:
    """A stream that is silent once it is lost: a terminal that was closed, a log on a full disk.

    A reader who has gone is another thing: BrokenPipeError is passed on.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lost = stream, False

    def write(self, text: str) -> int:
        """Write, if there is anything to write to."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        if self._lost:
            return
        try:
            act()
        except BrokenPipeError:
            raise
        except (OSError, ValueError):  # ValueError: it was closed
            self._lost = True

    def isatty(self) -> bool:
        """As the stream itself says."""
        return is_terminal(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def leave_quietly() -> None:
    """End this process: nobody reads what it says."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered has nowhere to go
    sys.exit(EXIT_NO_READER)
