"""Memory of this process as the system books it, by name (results.schema.json: memory)."""

import ctypes
import os
import resource
import sys

import psutil

from shared_spec.machine import nvml
from shared_spec.machine.probe import Findings

RUSAGE_INFO_V4 = 4
LIFETIME_MAX_FOOTPRINT = 30
"""Which 64-bit word of rusage_info_v4 is ri_lifetime_max_phys_footprint; its UUID makes the first two (sys/resource.h)."""
WORDS = 64
"""More than rusage_info_v4 has."""


def of_process(device: str) -> dict[str, int | None]:
    """Figures by name; those that belong to another kind of device or system are left out."""
    found = Findings()
    found.add("host_peak", host_peak_bytes)
    if sys.platform == "darwin":
        found.add("footprint_peak", footprint_peak_bytes)
    if device == "cuda":
        found.add("nvml_process", nvml.process_memory_bytes)
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
    if sys.platform != "darwin":
        return None
    words = (ctypes.c_uint64 * WORDS)()
    failed = ctypes.CDLL("/usr/lib/libSystem.dylib").proc_pid_rusage(os.getpid(), RUSAGE_INFO_V4, words)
    return None if failed else int(words[LIFETIME_MAX_FOOTPRINT]) or None
