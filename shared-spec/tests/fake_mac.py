"""macOS as far as the harness asks for it, in this process and in those that it starts: FAKE_MAC puts it in place.

Its commands are the caller's business (fake_system.py). A process's footprint is its resident set, and the bytes that
FAKE_MAC_METAL ("BYTES:SMALLEST") names more for each image of a batch of that many or more, which stand in for Metal's
buffers: they are in no resident set, here as there.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from shared_spec.machine import memory
from shared_spec.machine.memory import FOOTPRINT, LIFETIME_MAX_FOOTPRINT

BUFFERS = "fake-mac-buffers-{}"
"""File in which a process says what it has of such buffers: the parent asks for another process's."""


def buffers(pid: int) -> Path:
    return Path(os.environ["FAKE_MAC"]) / BUFFERS.format(pid)


class SystemLibrary:
    """The part of libSystem that memory.py uses."""

    def proc_pid_rusage(self, pid: int, flavour: int, words: Any) -> int:
        try:
            resident = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            return -1
        metal = int(buffers(pid).read_text()) if buffers(pid).exists() else 0
        words[FOOTPRINT] = words[LIFETIME_MAX_FOOTPRINT] = ctypes.c_uint64(resident + metal).value
        return 0


def allocate(batch_size: int) -> None:
    """Take Metal's buffers for a batch."""
    place = buffers(os.getpid())
    new = place.with_suffix(".new")
    each, _, smallest = os.environ.get("FAKE_MAC_METAL", "0:0").partition(":")
    new.write_text(str(batch_size * int(each) if batch_size >= int(smallest) else 0))
    new.rename(place)


def enter() -> None:
    """Make this process one on macOS from here on; what was imported before keeps what it knows."""
    for target, name, value in (
        (sys, "platform", "darwin"),
        (memory, "system_library", SystemLibrary),
    ):
        patch.object(target, name, value).start()
