"""Which machine this is, told from others without telling which: a salted hash."""

import hashlib
import os
import platform
import re
import sys

from shared_spec.machine import nvml
from shared_spec.machine.facts import container
from shared_spec.machine.probe import command_output, first_line

MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def salted(salt: str, device: str) -> str:
    """Sixteen hexadecimal digits: the same for the same machine and salt, and without the salt of no use to anybody."""
    return hashlib.sha256("\n".join((salt, *_marks(device))).encode()).hexdigest()[:16]


def _marks(device: str) -> list[str]:
    """What tells this machine, and on "cuda" its GPU, from others."""
    return [_system_mark() or platform.node(), *([_gpu_mark()] if device == "cuda" else [])]


def _system_mark() -> str | None:
    """What the system was given when it was installed; in a container, which may share that with others, its start."""
    if sys.platform == "darwin":
        told = command_output("ioreg", "-rd1", "-c", "IOPlatformExpertDevice") or ""
        found = re.search(r'"IOPlatformUUID" = "([^"]+)"', told)
        return found.group(1) if found else None
    if container():
        return first_line(BOOT_ID)
    return next(filter(None, map(first_line, MACHINE_IDS)), None)


def _gpu_mark() -> str:
    try:
        return str(nvml.connect(nvml.load(), os.environ).ask("nvmlDeviceGetUUID"))
    except nvml.NoGpu:
        return ""
