"""The machine a result was measured on: what the system tells without root of its parts, settings and state."""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cpuinfo
import psutil

from shared_spec.machine import hardware, limits, nvml, topology
from shared_spec.machine.probe import command_output, first_line, rooted, whole_number

Facts = dict[str, Any]
"""Plain values by name; None where the system does not tell."""

MACHINE = ("system", "machine", "cpu_name", "cpu_logical_cores", "gpu_name", "gpu_count", "gpu_driver")
"""Facts that the phases of one result have in common; a machine where one of them differs is another."""

# --- What a run does not change.


def collect(device: str = "cpu") -> Facts:
    """Facts of system, processor, memory and, on a "cuda" device, GPU, by name (results.schema.json: environment)."""
    info = cpuinfo.get_cpu_info()
    return {
        "system": platform.system(),
        "system_release": platform.release(),
        "machine": platform.machine(),
        "cpu_name": info.get("brand_raw"),
        "cpu_flags": [flag for flag in info.get("flags", []) if flag.startswith(("amx", "avx", "sve", "bf16"))][:64],
        "cpu_physical_cores": psutil.cpu_count(logical=False),
        "cpu_logical_cores": psutil.cpu_count(),
        "cpu_affinity": topology.affinity(),
        "memory_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "user_settings": user_settings(),
        **(_mac() if sys.platform == "darwin" else _linux()),
        **hardware.facts(),
        **({"cuda_kernel_cache": cuda_kernel_cache(), **nvml.facts()} if device == "cuda" else {}),
    }


SETTINGS = re.compile(
    r"(OMP|KMP|GOMP|MKL|DNNL|ONEDNN|OPENBLAS|MALLOC|JEMALLOC|TCMALLOC|MLX|XLA|CUDA|CUDNN|CUBLAS|NCCL|PYTORCH|TORCH|ATEN|"
    r"IPEX|TF_(XLA|GPU|CUDNN|CPP|ENABLE|DISABLE|NUM|FORCE|USE|DETERMINISTIC))_\w+$|"
    r"(LD_PRELOAD|DYLD_INSERT_LIBRARIES|GLIBC_TUNABLES|NVIDIA_TF32_OVERRIDE|NVIDIA_VISIBLE_DEVICES|TF_XLA_FLAGS)$"
)
"""Variables that change how fast a framework runs. No wider: TF_VAR_ is Terraform's, and holds its users' secrets."""
PRIVATE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|HOST|COORDINATOR|ADDR|IFNAME|COMM_ID|_IP$")
"""Parts of names whose values name machines or networks, or open them."""


def user_settings(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What the user's own environment sets and every phase process inherits, as NAME=value, where it matters for speed."""
    kept = [name for name in sorted(environ) if SETTINGS.match(name) and not PRIVATE.search(name)]
    return [f"{name}={environ[name]}"[:1000] for name in kept][:64]


def cuda_kernel_cache(environ: Mapping[str, str] = os.environ) -> str:
    """State of the driver's cache of kernels compiled on this machine, on which the time of a first step depends."""
    if environ.get("CUDA_CACHE_DISABLE") == "1":
        return "off"
    folder = Path(environ.get("CUDA_CACHE_PATH") or "~/.nv/ComputeCache").expanduser()
    return "warm" if folder.is_dir() and any(folder.iterdir()) else "cold"


def _mac() -> Facts:
    """macOS: build, whether Rosetta translates this process, and the power mode (pmset needs no root)."""
    translated = command_output("sysctl", "-n", "sysctl.proc_translated")
    power_mode = re.search(r"^\s*(?:low)?powermode\s+(\d)", command_output("pmset", "-g") or "", re.MULTILINE)
    return {
        "macos_build": command_output("sw_vers", "-buildVersion"),
        "cpu_sockets": whole_number(command_output("sysctl", "-n", "hw.packages")),
        "rosetta": translated == "1" if translated is not None else None,
        "power_mode": power_mode.group(1) if power_mode else None,
    }


def _linux() -> Facts:
    cpu = "/sys/devices/system/cpu"
    no_turbo, boost = first_line(f"{cpu}/intel_pstate/no_turbo"), first_line(f"{cpu}/cpufreq/boost")
    packages = {path.read_text().strip() for path in rooted(cpu).glob("cpu[0-9]*/topology/physical_package_id")}
    max_khz = whole_number(first_line(f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq"))
    return {
        "distribution": _distribution(),
        "libc": " ".join(platform.libc_ver()) or None,
        "cpu_sockets": len(packages) or None,
        "cpu_max_clock_mhz": None if max_khz is None else max_khz / 1000,
        "cpu_microcode": _cpuinfo_field("microcode"),
        "cpu_governor": first_line(f"{cpu}/cpu0/cpufreq/scaling_governor"),
        "cpu_energy_preference": first_line(f"{cpu}/cpu0/cpufreq/energy_performance_preference"),
        "power_mode": first_line("/sys/firmware/acpi/platform_profile"),
        "cpu_turbo": no_turbo == "0" if no_turbo is not None else boost == "1" if boost is not None else None,
        "cpu_smt": first_line(f"{cpu}/smt/control"),
        "numa_nodes": len(list(rooted("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "transparent_hugepages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "container": _container(),
        "virtual_machine": "hypervisor" in (_cpuinfo_field("flags") or "").split(),
        "memory_limit_bytes": limits.memory_limit(),
        "cpu_quota_cores": limits.cpu_quota(),
    }


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _cpuinfo_field(name: str) -> str | None:
    """The first processor's line of that name in /proc/cpuinfo; None where there is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in rooted("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


def _container() -> str | None:
    if rooted("/.dockerenv").exists():
        return "docker"
    if rooted("/run/.containerenv").exists():
        return "podman"
    return os.environ.get("container")  # noqa: SIM112  (systemd spells it so)


# --- What changes while a machine works.


def state(device: str, now: datetime) -> Facts:
    """Load, temperatures, clocks and power source as they are now; of the GPU too where one runs.

    Taken before and after a run, so that a reader sees a machine that was busy, hot or throttled. `now` is the time of
    day, as only measure/clock.py reads a clock.
    """
    temperatures = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    celsius = [sensor.current for sensors in temperatures.values() for sensor in sensors]
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_average_1min": psutil.getloadavg()[0],
        "uptime_seconds": round(now.timestamp() - psutil.boot_time()),
        "memory_available_bytes": psutil.virtual_memory().available,
        "swap_used_bytes": psutil.swap_memory().used,
        "hottest_sensor_celsius": max(celsius, default=None),
        "cpu_clock_mhz": frequency.current if frequency else None,
        "on_ac_power": _on_ac_power(),
        **({"cpu_speed_limit_percent": _mac_speed_limit(), **hardware.mac_state()} if sys.platform == "darwin" else {}),
        **(nvml.state() if device == "cuda" else {}),
    }


def _on_ac_power() -> bool | None:
    """Whether the machine is plugged in; None where it has no battery."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery.power_plugged if battery else None


def _mac_speed_limit() -> int | None:
    """What macOS lets the processor run at for heat, per cent (pmset needs no root); None where it does not tell."""
    limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", command_output("pmset", "-g", "therm") or "")
    return int(limit.group(1)) if limit else None


LOW_POWER = ("low-power", "quiet", "1")
"""Power modes that cost speed: Linux's platform profiles, and macOS's low power mode."""


def warnings(environment: Facts) -> list[str]:
    """What about this machine, in its facts and its state, may spoil a measurement, a sentence each."""
    sentences = []
    cores = environment["cpu_logical_cores"] or 1
    if environment["load_average_1min"] > 0.5 * cores:
        sentences.append(
            f"the machine was busy at the start: load average {environment['load_average_1min']:.1f} on {cores} cores"
        )
    if environment.get("gpu_foreign_processes"):
        sentences.append(f"{environment['gpu_foreign_processes']} other processes were on the GPU at the start")
    if reasons := [r for r in environment.get("gpu_throttle_reasons") or () if r != "gpu_idle"]:
        sentences.append(f"the GPU's clock was held down at the start already: {', '.join(reasons)}")
    if environment["on_ac_power"] is False:
        sentences.append("the machine ran on its battery")
    if environment.get("power_mode") in LOW_POWER:
        sentences.append("the machine was set to save power")
    if (limit := environment.get("cpu_speed_limit_percent")) is not None and limit < 100:
        sentences.append(f"the processor was held to {limit} % of its speed for heat at the start already")
    if environment.get("rosetta"):
        sentences.append("Python was translated by Rosetta: install a native arm64 Python")
    return sentences
