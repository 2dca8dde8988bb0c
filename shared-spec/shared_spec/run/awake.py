"""Keeping the machine awake as long as a run lasts, by the system's own tool; without one nothing is done."""

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

ANSWER_SECONDS = 5.0
"""How long systemd-inhibit may take to get its lock."""


def tool() -> str | None:
    """The tool of this system that keeps it awake; None where there is none."""
    name = "caffeinate" if sys.platform == "darwin" else "systemd-inhibit"
    return name if shutil.which(name) else None


def works() -> bool:
    """Whether the tool is there and keeps the machine awake, which is tried for a moment."""
    if (holder := _hold()) is None:
        return False
    _release(holder)
    return True


@contextlib.contextmanager
def kept(say: Callable[[str], None]) -> Iterator[None]:
    """Keep the machine from sleeping while the block lasts, and no longer even if this process is killed.

    Args:
        say: is told whether it is kept awake, where there is a tool for it.
    """
    holder = _hold()
    if holder is not None:
        say(
            f"Kept awake until the run ends ({tool()}); a lid that is closed or a battery that is empty still stops it."
        )
    elif tool() is not None:
        say(f"{tool()} gives no lock here: make sure that this machine does not go to sleep.")
    try:
        yield
    finally:
        if holder is not None:
            _release(holder)


def _hold() -> "subprocess.Popen[bytes] | None":
    """A process that keeps the machine awake as long as it and this one live; None where that cannot be had."""
    name = tool()
    if name is None:
        return None
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    words = [name, "-i", "-w", str(os.getpid())]
    if name == "systemd-inhibit":  # cat ends with this process, as its input does
        words = [name, "--what=idle:sleep", "--who=deit-bench", "--why=a benchmark is under way", "cat"]
    try:
        holder = subprocess.Popen(words, **quiet)  # type: ignore[call-overload]
    except OSError:
        return None
    held: subprocess.Popen[bytes] = holder
    if name == "systemd-inhibit" and not _answers(held):
        _release(held)
        return None
    return held


def _answers(holder: "subprocess.Popen[bytes]") -> bool:
    """Whether cat runs, which it does once the lock is there."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdin.write(b"held\n")
        holder.stdin.flush()
    except OSError:
        return False
    readable, _, _ = select.select([holder.stdout], [], [], ANSWER_SECONDS)
    return bool(readable) and os.read(holder.stdout.fileno(), 5) == b"held\n"


def _release(holder: "subprocess.Popen[bytes]") -> None:
    for pipe in (holder.stdin, holder.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    holder.terminate()
    holder.wait()
