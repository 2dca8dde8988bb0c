"""A folder held by one process at a time, on whatever file system it lies.

flock is the lock of choice: it goes with its process, however that ends. NFS, SMB and FUSE may not have it. There a
file that only one can create stands for it, which says whose it is, so that the next can tell whether that one still
lives. Where not even that works, the run goes on without a lock, and says so.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from shared_spec.errors import UserError

BUSY = "The same run is under way in another process; wait for it, or stop it first."
UNLOCKED = (
    "the results folder is on a file system without locks: take care that the same run is not started twice at a time"
)


@contextmanager
def held(folder: Path) -> Iterator[str | None]:
    """Hold `folder` alone; yields a warning where nothing keeps others out.

    Raises:
        UserError: another process holds it.
    """
    path = folder / "lock"
    with contextlib.ExitStack() as stack:
        try:
            file = _locked(path, stack)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise UserError(BUSY) from None
            file = None
        yield None if file is not None else stack.enter_context(_by_creation(folder / "lock.owner"))


def _locked(path: Path, stack: contextlib.ExitStack) -> IO[str]:
    """The lock file, locked, and still the one that is there: who had it before may have removed it meanwhile."""
    while True:
        file = stack.enter_context(path.open("a"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _by_creation(path: Path) -> Iterator[str | None]:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid())}
    try:
        if not _created(path, owner):
            _remove_if_left(path)
            if not _created(path, owner):
                raise UserError(BUSY)
    except OSError:
        yield UNLOCKED
        return
    try:
        yield None
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _created(path: Path, owner: dict[str, Any]) -> bool:
    try:
        with path.open("x") as file:
            json.dump(owner, file)
    except FileExistsError:
        return False
    return True


def _remove_if_left(path: Path) -> None:
    """Remove the file of a process of this machine that lives no more.

    Raises:
        UserError: its owner lives, or is on another machine, where nobody here can see it.
    """
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        host, pid, started = owner["host"], owner["pid"], owner["started"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{BUSY} If there is none, remove {path}.") from None
    if host != socket.gethostname():
        raise UserError(f"{BUSY} It is on {host}; if it is over, remove {path}.")
    if _start_of(pid) == started:
        raise UserError(BUSY)
    path.unlink(missing_ok=True)


def _start_of(pid: int) -> float | None:
    """When a process was started; None where there is none: numbers of processes are given again."""
    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None
