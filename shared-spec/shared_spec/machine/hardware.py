"""Parts of the machine that decide its results: kinds of cores, power limits, memory modules, a Mac's chip."""

import re
import sys
from typing import Any

from shared_spec.machine import topology
from shared_spec.machine.probe import command_output, file_number, first_line, rooted, whole_number

Facts = dict[str, Any]
"""Plain values by name; None where the system does not tell."""

THERMAL_PRESSURE = ("nominal", "moderate", "heavy", "trapping", "sleeping")
"""What macOS calls its levels of thermal pressure, from 0 (OSThermalNotification.h)."""


def facts() -> Facts:
    """Facts of this machine that a run does not change, without root."""
    fast, slow = topology.core_counts()
    kinds = {"cpu_performance_cores": fast, "cpu_efficiency_cores": slow}
    return kinds | (_mac() if sys.platform == "darwin" else _linux())


def is_wsl() -> bool:
    """Whether this Linux is the Windows Subsystem for Linux, whose kernel says so in its release."""
    return "microsoft" in (first_line("/proc/sys/kernel/osrelease") or "").lower()


# --- Macs.


def _mac() -> Facts:
    limit = whole_number(command_output("sysctl", "-n", "iogpu.wired_limit_mb"))
    return {
        "mac_model": command_output("sysctl", "-n", "hw.model") or None,
        "gpu_cores": mac_gpu_cores(),
        "gpu_wired_limit_bytes": limit << 20 if limit else None,  # 0: the system's own
    }


def mac_gpu_cores() -> int | None:
    """Cores of Apple's GPU."""
    told = command_output("ioreg", "-rc", "AGXAccelerator", "-d", "1") or ""
    match = re.search(r'"gpu-core-count"\s*=\s*(\d+)', told)
    return int(match.group(1)) if match else None


def mac_state() -> Facts:
    """What of a Mac changes while it works: its thermal pressure, by macOS's own name for the level."""
    told = command_output("notifyutil", "-g", "com.apple.system.thermalpressurelevel") or ""
    level = whole_number(told.split()[-1]) if told.split() else None
    known = level is not None and level < len(THERMAL_PRESSURE)
    return {"thermal_pressure": THERMAL_PRESSURE[level] if known and level is not None else None}


# --- Linux.


def _linux() -> Facts:
    return {**_power_limits(), **_memory_modules(), "wsl": is_wsl()}


def _power_limits() -> Facts:
    """Intel's limits of the package's power, long (PL1) and short (PL2), watts; no root is needed for these."""
    watts: Facts = {"cpu_power_limit_long_watts": None, "cpu_power_limit_short_watts": None}
    for zone in sorted(rooted("/sys/class/powercap").glob("intel-rapl:[0-9]")):
        folder = f"/sys/class/powercap/{zone.name}"
        if not (first_line(f"{folder}/name") or "").startswith("package"):
            continue
        for number in range(3):
            length = (first_line(f"{folder}/constraint_{number}_name") or "").removesuffix("_term")
            limit = file_number(f"{folder}/constraint_{number}_power_limit_uw")
            if limit and f"cpu_power_limit_{length}_watts" in watts:
                watts[f"cpu_power_limit_{length}_watts"] = limit / 1e6
        break
    return watts


def _memory_modules() -> Facts:
    """Modules of memory as the firmware lists them; udev, which may read its tables, keeps them for everybody."""
    told = command_output("udevadm", "info", "-q", "property", "-p", "/sys/devices/virtual/dmi/id") or ""
    found = re.findall(r"^MEMORY_DEVICE_(\d+)_(\w+)=(.*)$", told, re.MULTILINE)
    devices: dict[str, dict[str, str]] = {}
    for number, name, value in found:
        devices.setdefault(number, {})[name] = value.strip()
    filled = [device for device in devices.values() if (whole_number(device.get("SIZE")) or 0) > 0]
    speeds = [whole_number(d.get("CONFIGURED_SPEED_MTS") or d.get("SPEED_MTS")) or 0 for d in filled]
    places = [" ".join((d.get("BANK_LOCATOR", ""), d.get("LOCATOR", ""))) for d in filled]
    channels = {m.group(1).upper() for place in places if (m := re.search(r"channel[ _-]?(\w)", place, re.IGNORECASE))}
    return {
        "memory_modules": len(filled) or None,
        "memory_channels": len(channels) or None,
        "memory_type": next((d["TYPE"] for d in filled if d.get("TYPE")), None),
        "memory_speed_mts": min((speed for speed in speeds if speed), default=None),
    }
