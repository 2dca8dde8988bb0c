"""The machine a result was measured on: what the system tells without root of its parts, settings and state."""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cpuinfo
import psutil

from shared_spec.machine import hardware, limits, nvml, topology
from shared_spec.machine.probe import (
    SLOW_SECONDS,
    Asker,
    Findings,
    Unread,
    command_output,
    first_line,
    in_a_line,
    rooted,
    whole_number,
    within,
)

Facts = dict[str, Any]
"""Plain values by name; None where the system does not tell."""

MACHINE = ("system", "machine", "cpu_name", "cpu_logical_cores", "gpu_name", "gpu_count", "gpu_driver")
"""Facts that the phases of one result have in common; a machine where one of them differs is another."""

# --- What a run does not change.


def collect(device: str = "cpu", asker: Asker | None = None) -> Facts:
    """Facts of system, processor, memory and, on a "cuda" device, GPU, by name (results.schema.json: environment)."""
    found = Findings(asker)
    found.add("system", platform.system)
    found.add("system_release", platform.release)
    found.add("machine", platform.machine)
    found.add_all("cpu_name", ("cpu_name", "cpu_flags"), _processor, SLOW_SECONDS)
    found.add("cpu_physical_cores", lambda: psutil.cpu_count(logical=False))
    found.add("cpu_logical_cores", lambda: psutil.cpu_count() or os.cpu_count())
    found.add("cpu_affinity", topology.affinity)
    found.add("memory_bytes", lambda: psutil.virtual_memory().total)
    found.add("swap_bytes", lambda: psutil.swap_memory().total)
    found.add("user_settings", user_settings)
    for name, question in (MAC if sys.platform == "darwin" else LINUX).items():
        found.add(name, question, SLOW_SECONDS)
    found.add_all("hardware", (), hardware.facts, SLOW_SECONDS)
    if device == "cuda":
        found.add("cuda_kernel_cache", cuda_kernel_cache)
        found.add_all("gpu", nvml.facts_of(None), lambda: nvml.facts_of(_gpu()), SLOW_SECONDS)
    return found.told()


def _gpu() -> nvml.Gpu:
    try:
        return nvml.connect(nvml.load(), os.environ)
    except nvml.NoGpu as error:
        raise Unread(str(error)) from None


def _processor() -> Facts:
    """Name and flags of the processor; the name from the system itself where cpuinfo fails or does not know it."""
    try:
        info = cpuinfo.get_cpu_info()
    except Exception as error:  # it reads a dozen sources, and each has its own way to fail
        name = _processor_name()
        if name is None:
            raise Unread(in_a_line(error)) from error
        return {"cpu_name": name, "cpu_flags": None}
    flags = [flag for flag in info.get("flags") or [] if flag.startswith(("amx", "avx", "sve", "bf16"))]
    return {"cpu_name": info.get("brand_raw") or _processor_name(), "cpu_flags": flags}


def _processor_name() -> str | None:
    if sys.platform == "darwin":
        return command_output("sysctl", "-n", "machdep.cpu.brand_string")
    return _cpuinfo_field("model name") or first_line("/sys/firmware/devicetree/base/model")


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
    named = environ.get("CUDA_CACHE_PATH")
    folder = Path(named) if named else Path(os.path.expanduser("~/.nv/ComputeCache"))
    return "warm" if folder.is_dir() and any(folder.iterdir()) else "cold"


def _sysctl(name: str) -> str | None:
    return command_output("sysctl", "-n", name)


def _rosetta() -> bool | None:
    translated = _sysctl("sysctl.proc_translated")
    return translated == "1" if translated is not None else None


def _mac_power_mode() -> str | None:
    power_mode = re.search(r"^\s*(?:low)?powermode\s+(\d)", command_output("pmset", "-g") or "", re.MULTILINE)
    return power_mode.group(1) if power_mode else None


MAC: dict[str, Callable[[], Any]] = {
    "macos_build": lambda: command_output("sw_vers", "-buildVersion"),
    "cpu_sockets": lambda: whole_number(_sysctl("hw.packages")),
    "rosetta": _rosetta,
    "power_mode": _mac_power_mode,
}
"""What macOS tells: its build, whether Rosetta translates this process, and the power mode (pmset needs no root)."""


CPU = "/sys/devices/system/cpu"


def _max_clock_mhz() -> float | None:
    khz = whole_number(first_line(f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq"))
    return None if khz is None else within(khz / 1000, *CLOCKS_MHZ, "MHz")


def _turbo() -> bool | None:
    no_turbo, boost = first_line(f"{CPU}/intel_pstate/no_turbo"), first_line(f"{CPU}/cpufreq/boost")
    return no_turbo == "0" if no_turbo is not None else boost == "1" if boost is not None else None


def _sockets() -> int | None:
    packages = {first_line(path) for path in rooted(CPU).glob("cpu[0-9]*/topology/physical_package_id")}
    return len(packages - {None}) or None


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


def container() -> str | None:
    """Which kind of container this process runs in, as far as it can be seen; None outside."""
    if rooted("/.dockerenv").exists():
        return "docker"
    if rooted("/run/.containerenv").exists():
        return "podman"
    return os.environ.get("container")  # noqa: SIM112  (systemd spells it so)


LINUX: dict[str, Callable[[], Any]] = {
    "distribution": _distribution,
    "libc": lambda: " ".join(platform.libc_ver()).strip() or None,
    "cpu_sockets": _sockets,
    "cpu_max_clock_mhz": _max_clock_mhz,
    "cpu_microcode": lambda: _cpuinfo_field("microcode"),
    "cpu_governor": lambda: first_line(f"{CPU}/cpu0/cpufreq/scaling_governor"),
    "cpu_energy_preference": lambda: first_line(f"{CPU}/cpu0/cpufreq/energy_performance_preference"),
    "power_mode": lambda: first_line("/sys/firmware/acpi/platform_profile"),
    "cpu_turbo": _turbo,
    "cpu_smt": lambda: first_line(f"{CPU}/smt/control"),
    "numa_nodes": lambda: len(list(rooted("/sys/devices/system/node").glob("node[0-9]*"))) or None,
    "transparent_hugepages": lambda: first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
    "container": container,
    "virtual_machine": lambda: "hypervisor" in (_cpuinfo_field("flags") or "").split(),
    "memory_limit_bytes": limits.memory_limit,
    "cpu_quota_cores": limits.cpu_quota,
}
"""What Linux tells."""


# --- What changes while a machine works.


CLOCKS_MHZ = (50.0, 10_000.0)
"""Between these a processor's clock lies; psutil reads 4 where it takes GHz for MHz."""
CELSIUS = (-50.0, 150.0)
"""Between these a sensor's temperature lies; one that is not connected reads -273, or 255."""


def state(device: str, now: datetime, asker: Asker | None = None) -> Facts:
    """Load, temperatures, clocks and power source as they are now; of the GPU too where one runs.

    Taken before and after a run, so that a reader sees a machine that was busy, hot or throttled. `now` is the time of
    day, as only measure/clock.py reads a clock.
    """
    found = Findings(asker)
    found.add("load_average_1min", lambda: psutil.getloadavg()[0])
    found.add("uptime_seconds", lambda: _uptime(now))
    found.add("memory_available_bytes", lambda: psutil.virtual_memory().available)
    found.add("swap_used_bytes", lambda: psutil.swap_memory().used)
    found.add("hottest_sensor_celsius", _hottest)
    found.add("cpu_clock_mhz", _clock_mhz)
    found.add("on_ac_power", _on_ac_power)
    if sys.platform == "darwin":
        found.add("cpu_speed_limit_percent", _mac_speed_limit, SLOW_SECONDS)
        found.add_all("hardware", (), hardware.mac_state, SLOW_SECONDS)
    if device == "cuda":
        found.add_all("gpu", nvml.state_of(None), lambda: nvml.state_of(_gpu()), SLOW_SECONDS)
    return found.told()


def boot_time() -> float | None:
    """When the system was started, seconds since 1970; None where it does not tell."""
    with contextlib.suppress(Unread):
        seconds: float = Asker().ask(psutil.boot_time)
        return seconds
    return None


def _uptime(now: datetime) -> int:
    seconds: int = round(now.timestamp() - psutil.boot_time())
    if seconds < 0:
        raise Unread("by its clock the system has not been started yet")
    return seconds


def _hottest() -> float | None:
    temperatures = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    celsius = [sensor.current for sensors in temperatures.values() for sensor in sensors if sensor.current is not None]
    hottest: float | None = max((value for value in celsius if CELSIUS[0] <= value <= CELSIUS[1]), default=None)
    return hottest


def _clock_mhz() -> float | None:
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return within(frequency.current, *CLOCKS_MHZ, "MHz") if frequency else None


def _on_ac_power() -> bool | None:
    """Whether the machine is plugged in; None where it has no battery."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery.power_plugged if battery else None


def _mac_speed_limit() -> int | None:
    """What macOS lets the processor run at for heat, per cent (pmset needs no root); None where it does not tell."""
    limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", command_output("pmset", "-g", "therm") or "")
    return int(limit.group(1)) if limit else None


YEARS = (2025, 2100)
"""Between these a clock that is set stands: this project has no older result."""


def clock_warnings(now: datetime) -> list[str]:
    """What is wrong with the machine's time of day, which a result is named after; its durations have a clock of their own."""
    if YEARS[0] <= now.year < YEARS[1]:
        return []
    return [f"the clock of this machine is wrong: it says {now:%Y-%m-%d}, and so does this result; set it"]


LOW_POWER = ("low-power", "quiet", "1")
"""Power modes that cost speed: Linux's platform profiles, and macOS's low power mode."""


def warnings(environment: Facts) -> list[str]:
    """What about this machine, in its facts and its state, may spoil a measurement, a sentence each."""
    sentences = []
    cores, load = environment.get("cpu_logical_cores") or 1, environment.get("load_average_1min")
    if load is not None and load > 0.5 * cores:
        sentences.append(f"the machine was busy at the start: load average {load:.1f} on {cores} cores")
    if environment.get("gpu_foreign_processes"):
        sentences.append(f"{environment['gpu_foreign_processes']} other processes were on the GPU at the start")
    if reasons := [r for r in environment.get("gpu_throttle_reasons") or () if r != "gpu_idle"]:
        sentences.append(f"the GPU's clock was held down at the start already: {', '.join(reasons)}")
    if environment.get("on_ac_power") is False:
        sentences.append("the machine ran on its battery")
    if environment.get("power_mode") in LOW_POWER:
        sentences.append("the machine was set to save power")
    if (limit := environment.get("cpu_speed_limit_percent")) is not None and limit < 100:
        sentences.append(f"the processor was held to {limit} % of its speed for heat at the start already")
    if environment.get("rosetta"):
        sentences.append("Python was translated by Rosetta: install a native arm64 Python")
    return sentences
