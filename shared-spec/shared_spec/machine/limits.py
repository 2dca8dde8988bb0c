"""What the control groups of Linux, versions 1 and 2, let this process have of processors and memory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shared_spec.machine.probe import file_number, first_line, rooted

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_CONTROL_GROUP = Path("/proc/self/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 writes no limit as a number near 2^63."""


def cpu_quota(root: Path = CONTROL_GROUPS, own: Path = OWN_CONTROL_GROUP) -> float | None:
    """Cores' worth of time that the control groups allow; None where they set no limit."""
    quotas = []
    for folder in _groups(root, own, None):
        quota, _, period = (first_line(folder / "cpu.max") or "max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    for folder in _groups(root, own, "cpu"):
        allowed, whole = file_number(folder / "cpu.cfs_quota_us"), file_number(folder / "cpu.cfs_period_us")
        if allowed and whole:  # -1, which is no number of digits alone, means none
            quotas.append(allowed / whole)
    return min(quotas, default=None)


def memory_limit(root: Path = CONTROL_GROUPS, own: Path = OWN_CONTROL_GROUP) -> int | None:
    """The tightest limit of this process's control groups, bytes; None where none is set."""
    limits = [file_number(folder / "memory.max") for folder in _groups(root, own, None)]
    limits += [file_number(folder / "memory.limit_in_bytes") for folder in _groups(root, own, "memory")]
    return min((limit for limit in limits if limit is not None and limit < UNLIMITED_BYTES), default=None)


def _groups(root: Path, own: Path, controller: str | None) -> Iterator[Path]:
    """Folders of the control group that this process is in and of all around it.

    The top is always among them: in a container the path is often the host's, which is not there, while the limits lie
    at the top.

    Args:
        controller: of version 1; None for version 2.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
        for line in rooted(own).read_text(encoding="utf-8").splitlines():
            number, names, path = line.split(":", 2)
            if controller is None and number == "0":
                yield from _upwards(root, path)
            elif controller is not None and controller in names.split(","):
                for mount in {names, controller}:
                    yield from _upwards(root / mount, path)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    here = root / path.lstrip("/")
    yield from [here, *(parent for parent in here.parents if parent.is_relative_to(root))]
