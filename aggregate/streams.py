"""Where the words of a command go: a terminal, a log, a pipe whose reader leaves, a disk that is full."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import IO, NoReturn

import click
from rich.console import Console

from aggregate.render.terminal import UNBOUNDED

EXIT_NO_READER = 141
"""Exit status where nobody reads any more, as in `| head`: what a shell says of a command that SIGPIPE has ended."""
EXIT_CANNOT_WRITE = 74
"""Exit status where standard output cannot be written to: EX_IOERR of sysexits.h."""
EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What writing fails with on a full disk, or where what was open is gone."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Have the pipe's end reach `guarded`; rich would leave with status 1, which means something else."""
        raise BrokenPipeError


def console(*, soft_wrap: bool = False) -> Console:
    """A console on standard output; with `soft_wrap` no sentence is broken into lines.

    What is no terminal is as wide as a table needs to be, or COLUMNS. FORCE_COLOR asks for colours; it makes no terminal
    of a log.
    """
    bounded = _is_terminal(sys.stdout) or os.environ.get("COLUMNS", "").isdecimal()
    return _Console(highlight=False, soft_wrap=soft_wrap, width=None if bounded else UNBOUNDED)


def errors() -> Console:
    """A console on standard error, whose sentences are never broken into lines."""
    return _Console(stderr=True, soft_wrap=True)


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def guarded(command: click.Command, name: str) -> NoReturn:
    r"""Run a command and end the process; output that cannot be written ends it with one sentence, or with none.

    What standard output's encoding does not have is written as \xe9. Nothing is ended by a lost standard error.
    """
    _have_all_streams()
    status: object = 0
    try:
        try:  # what command.main() does, but for leaving a broken pipe with status 1, which means something else
            with command.make_context(name, sys.argv[1:]) as context:
                command.invoke(context)
        except SystemExit as end:
            status = end.code
        except click.exceptions.Exit as end:
            status = end.exit_code
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            status = EXIT_INTERRUPTED
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up()
        status = EXIT_NO_READER
    except OSError as error:
        if error.errno not in LOST or error.filename is not None:
            raise
        _give_up()
        click.echo(f"Standard output cannot be written to ({error.strerror}).", err=True)
        status = EXIT_CANNOT_WRITE
    sys.exit(status if isinstance(status, int) or status is None else str(status))


def _have_all_streams() -> None:
    """Python has None where a stream was closed before it began (`>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (lasts as long as the process)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = _Lasting(sys.stderr)


class _Lasting:
    """A stream that swallows what it cannot write."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that can be."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _give_up() -> None:
    """Throw away what is buffered: Python would try to write it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
