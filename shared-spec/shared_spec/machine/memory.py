"""Memory of this process as the system books it, by name (results.schema.json: memory)."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, Self

import psutil

from shared_spec.machine import nvml
from shared_spec.machine.probe import Findings
from shared_spec.machine.sampler import Sampler

RUSAGE_INFO_V4 = 4
FOOTPRINT, LIFETIME_MAX_FOOTPRINT = 9, 30
"""Which 64-bit words of rusage_info_v4 are ri_phys_footprint and ri_lifetime_max_phys_footprint; its UUID makes the
first two (sys/resource.h)."""
WORDS = 64
"""More than rusage_info_v4 has."""


POLL_SECONDS = 2.0
"""Frameworks seldom give memory back to the driver, so that its peak lasts; a query may take a millisecond."""


class DriverPeak:
    """The most memory that NVIDIA's driver has booked on this process, asked every two seconds and when read.

    Args:
        booked: tells what is booked now, bytes; None where it does not.
    """

    def __init__(
        self, booked: Callable[[], int | None] = nvml.process_memory_bytes, sampler: type[Sampler] = Sampler
    ) -> None:
        self._booked = booked
        self._highest: int | None = None
        self._sampler = sampler(self._look, POLL_SECONDS)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._sampler.stop()

    def read(self) -> int | None:
        """Bytes; None where the driver never told."""
        self._look()
        return self._highest

    def _look(self) -> None:
        now = self._booked()
        if now is not None:
            self._highest = max(now, self._highest or 0)


def of_process(device: str, driver_peak: DriverPeak | None = None) -> dict[str, int | None]:
    """Figures by name; those that belong to another kind of device or system are left out.

    Args:
        driver_peak: what has been asked while the process worked; None: nothing has.
    """
    found = Findings()
    found.add("host_peak", host_peak_bytes)
    if sys.platform == "darwin":
        found.add("footprint_peak", footprint_peak_bytes)
    if device == "cuda":
        found.add("nvml_process", nvml.process_memory_bytes)
        if driver_peak is not None:
            found.add("nvml_process_peak", driver_peak.read)
    for reason in found.unread:
        print(f"memory: {reason}", file=sys.stderr)  # a phase's log
    return found.facts


def resident_bytes() -> int | None:
    """Resident set of this process now; None where the system does not tell."""
    found = Findings()
    found.add("resident", lambda: psutil.Process().memory_info().rss)
    resident: int | None = found.facts["resident"]
    return resident


def host_peak_bytes() -> int:
    """High-water resident set of this process; ru_maxrss counts KiB on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def footprint_peak_bytes() -> int | None:
    """High-water footprint of this process on macOS, Metal's memory included; None elsewhere."""
    return _footprint(os.getpid(), LIFETIME_MAX_FOOTPRINT)


def taken_bytes(process: psutil.Process) -> int:
    """What a process takes of the machine's memory now: on macOS its footprint, as a resident set lacks Metal's buffers.

    Raises:
        psutil.Error: the process is gone.
    """
    resident: int = process.memory_info().rss
    return max(resident, _footprint(process.pid, FOOTPRINT) or 0)


def system_library() -> Any:
    """The library of macOS that tells of processes."""
    return ctypes.CDLL("/usr/lib/libSystem.dylib")


def _footprint(pid: int, word: int) -> int | None:
    """A word of a process's rusage_info_v4; None on other systems, and of a process that is gone or somebody else's."""
    if sys.platform != "darwin":
        return None
    words = (ctypes.c_uint64 * WORDS)()
    failed = system_library().proc_pid_rusage(pid, RUSAGE_INFO_V4, words)
    return None if failed else int(words[word]) or None
