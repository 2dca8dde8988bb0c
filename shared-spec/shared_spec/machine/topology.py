"""Which of the machine's cores and memory this process may use: kinds of cores, affinity, quotas of control groups.

A parallel region ends with its slowest thread, so that a thread on an efficiency core holds up all others: unless it is
told otherwise, a CPU run keeps to the performance cores, a thread on each.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

import psutil

from shared_spec.errors import UserError
from shared_spec.machine import limits
from shared_spec.machine.probe import Asker, Unread, command_output, file_number, first_line, rooted, whole_number
from shared_spec.platform import Threads

CPUS = "/sys/devices/system/cpu"
PERFORMANCE, EFFICIENCY = "/sys/devices/cpu_core/cpus", "/sys/devices/cpu_atom/cpus"
"""Intel's two kinds of cores on a hybrid processor, a list of logical processors each."""


@dataclass(frozen=True)
class Core:
    """A physical core, as far as this process may use it.

    Attributes:
        package, number: as the system counts them; numbers need not follow one another.
        cpus: its logical processors that may be used, in order.
        fast: a performance core; every core is one where all are alike.
    """

    package: int
    number: int
    cpus: tuple[int, ...]
    fast: bool = True


def listed(text: str | None) -> set[int]:
    """The numbers of a list as Linux writes it: "0-3,8,10-11"."""
    numbers: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            numbers |= set(range(int(first), int(last if last.isdecimal() else first) + 1))
    return numbers


def cpu_count(*, logical: bool = True) -> int | None:
    """Processors, or physical cores; None where the system does not tell, whatever it raises or however long it takes."""
    try:
        count: int | None = Asker().ask(lambda: psutil.cpu_count(logical=logical))
    except Unread:
        return os.cpu_count() if logical else None
    return count


def allowed_cpus() -> set[int] | None:
    """The logical processors that this process may use; None where the system has no such thing."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _slow_cpus(cpus: Iterable[int]) -> set[int]:
    """Those of `cpus` that belong to efficiency cores: Intel lists them, Arm gives each processor a capacity."""
    if slow := listed(first_line(EFFICIENCY)):
        return slow
    if fast := listed(first_line(PERFORMANCE)):
        return set(cpus) - fast
    capacities = {cpu: file_number(f"{CPUS}/cpu{cpu}/cpu_capacity") or 0 for cpu in cpus}
    most = max(capacities.values(), default=0)
    return {cpu for cpu, capacity in capacities.items() if capacity < most}


def cores() -> list[Core]:
    """The physical cores this process may use, fast ones first; empty where the system does not list them."""
    allowed = allowed_cpus()
    if allowed is None:
        return []
    slow, found = _slow_cpus(allowed), dict[tuple[int, int], list[int]]()
    for cpu in sorted(allowed):
        topology = f"{CPUS}/cpu{cpu}/topology"
        package, number = file_number(f"{topology}/physical_package_id"), file_number(f"{topology}/core_id")
        if number is None:
            return []
        found.setdefault((package or 0, number), []).append(cpu)
    named = [Core(*name, tuple(cpus), cpus[0] not in slow) for name, cpus in found.items()]
    return sorted(named, key=lambda core: (not core.fast, core.package, core.number))


def mac_cores() -> tuple[int | None, int | None]:
    """Performance and efficiency cores of a Mac; None where it has no such level, as on Intel."""
    fast, slow = (command_output("sysctl", "-n", f"hw.perflevel{level}.physicalcpu") for level in (0, 1))
    return whole_number(fast), whole_number(slow)


def core_counts() -> tuple[int | None, int | None]:
    """Performance and efficiency cores that this process may use; None where the system does not tell them apart."""
    if sys.platform == "darwin":
        return mac_cores()
    all_cores = cores()
    fast = sum(core.fast for core in all_cores)
    return (fast, len(all_cores) - fast) if fast < len(all_cores) else (None, None)


def quota_cores() -> int | None:
    """Whole cores' worth of time that the control groups allow, at least one; None where they set no limit."""
    quota = limits.cpu_quota()
    return None if quota is None else max(1, floor(quota))


def chosen_cores(which: str) -> list[Core]:
    """The cores of a kind, "performance" or "all", that this process may use; all where none of them is fast."""
    everything = cores()
    return [core for core in everything if which == "all" or core.fast] or everything


def _by_kind(chosen: list[Core]) -> list[list[Core]]:
    """The fast cores, and the others."""
    return [[core for core in chosen if core.fast is fast] for fast in (True, False)]


def _countable(which: str) -> int:
    """How many cores there are where the system does not list them."""
    fast, slow = mac_cores() if sys.platform == "darwin" else (None, None)
    allowed = allowed_cpus()
    physical = cpu_count(logical=False) or cpu_count() or 1
    if fast:
        physical = fast + (slow or 0) if which == "all" else fast
    return min(physical, len(allowed)) if allowed else physical


def threads(ranks: int = 1, which: str = "performance", asked: int | None = None) -> Threads:
    """The threads of one of `ranks` processes that share this host, and their places where the system has such.

    Without `asked`, one on each chosen core, no more than the control groups allow.

    Raises:
        UserError: `asked` is more than there are logical processors to run them.
    """
    chosen = chosen_cores(which)
    per_core = [core.cpus for core in chosen]
    count = len(chosen) or _countable(which)
    most = sum(map(len, per_core)) or cpu_count() or count
    if asked is None:
        evenly = sum(len(alike) // ranks for alike in _by_kind(chosen)) if chosen else count // ranks
        count = max(1, min(evenly, (quota_cores() or count) // ranks))
    elif asked * ranks > most:
        raise UserError(
            f"--threads {asked}: {f'{ranks} processes of so many threads' if ranks > 1 else 'that'} would not fit the "
            f"{most} logical processors of the chosen cores; give at most {most // ranks}"
            f"{', or --cores all' if len(chosen) < len(cores()) else ''}."
        )
    else:
        count = asked
    if ranks > 1 or not chosen:
        return Threads(count, None)
    places = per_core[:count] if count <= len(chosen) else [(cpu,) for cpus in per_core for cpu in cpus][:count]
    return Threads(count, tuple(places))


def take_core_share(part: int, parts: int, which: str = "all", asked: int | None = None) -> None:
    """Keep this process, and the threads it will start, to part `part` of `parts` of the chosen cores.

    Without it each rank's thread pool would bind its threads to the same first cores. Each part has as many cores of
    either kind as the others. Only Linux lets a process choose.

    Args:
        asked: threads of each part; fewer than it has cores leave the last of those alone.
    """
    chosen = chosen_cores(which)
    if not chosen:
        return
    mine: list[Core] = []
    for alike in _by_kind(chosen):
        share = len(alike) // parts
        mine += alike[part * share : (part + 1) * share]
    cpus = {cpu for core in mine[: asked or None] for cpu in core.cpus}
    if cpus and cpus != allowed_cpus():  # with more ranks than cores the system decides
        os.sched_setaffinity(0, cpus)


def affinity() -> list[int] | None:
    """The logical processors that this process may use; None where that is all, or the system has no such thing."""
    allowed = sorted(allowed_cpus() or ())
    return allowed[:64] if allowed and len(allowed) < (cpu_count() or 0) else None


def has_bf16() -> bool | None:
    """Whether the processor has instructions for products of bfloat16; None where the system does not tell."""
    if sys.platform == "darwin":
        flag = command_output("sysctl", "-n", "hw.optional.arm.FEAT_BF16")
        return None if flag is None else flag == "1"
    flags = cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}) if flags else None


def cpu_flags() -> set[str]:
    """Instruction sets of the first processor in /proc/cpuinfo; empty where there is none."""
    try:
        lines = rooted("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    named = (line.partition(":") for line in lines)
    return next((set(flags.split()) for key, _, flags in named if key.strip() in ("flags", "Features")), set())
