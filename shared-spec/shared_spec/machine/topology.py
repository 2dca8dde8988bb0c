"""Which of the machine's cores and memory this process may use: physical cores, affinity, quotas of control groups."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from shared_spec.machine.probe import first_line, whole_number

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_CONTROL_GROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Physical cores this process may run on: what a compute-bound thread pool should have as threads."""
    physical: int = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return min(physical, allowed)


def take_core_share(part: int, parts: int) -> None:
    """Keep this process, and the threads it will start, to part `part` of `parts` of its physical cores.

    Without it each rank's thread pool would bind its threads to the same first cores. Only Linux lets a process choose.
    """
    if parts == 1 or not hasattr(os, "sched_setaffinity"):
        return
    cores: dict[tuple[int, int], set[int]] = {}
    for cpu in os.sched_getaffinity(0):
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        package, core = first_line(f"{topology}/physical_package_id"), first_line(f"{topology}/core_id")
        cores.setdefault((int(package or 0), int(core or cpu)), set()).add(cpu)
    share = len(cores) // parts
    mine = sorted(cores)[part * share : (part + 1) * share]
    if mine:  # with more ranks than cores the system decides
        os.sched_setaffinity(0, set().union(*(cores[core] for core in mine)))


def affinity() -> list[int] | None:
    """The logical processors that this process may use; None where that is all, or the system has no such thing."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed[:64] if allowed and len(allowed) < (psutil.cpu_count() or 0) else None


def cpu_quota(root: Path = CONTROL_GROUPS) -> float | None:
    """Cores' worth of time that the control groups allow; None where they set no limit."""
    quotas = []
    for folder in _control_groups(root, OWN_CONTROL_GROUP):
        quota, _, period = (first_line(folder / "cpu.max") or "max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = CONTROL_GROUPS, own: Path = OWN_CONTROL_GROUP) -> int | None:
    """The tightest memory.max of this process's control groups, bytes; None where none is set."""
    limits = [whole_number(first_line(folder / "memory.max")) for folder in _control_groups(root, own)]
    return min((limit for limit in limits if limit is not None), default=None)


def _control_groups(root: Path, own: Path) -> Iterator[Path]:
    """Folders of the control group (version 2) that this process is in and of all that are around it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in own.read_text(encoding="utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                here = root / path.lstrip("/")
                yield from [here, *(parent for parent in here.parents if parent.is_relative_to(root))]
