"""The machine a result was measured on: what the system tells without root, and nothing that names its owner."""

import contextlib
import ctypes
import getpass
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cpuinfo
import psutil

from shared_spec import __version__
from shared_spec.machine import nvml

Flat = dict[str, Any]


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _command(*words: str) -> str | None:
    """Output of a short system command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return os.environ.get("container")  # noqa: SIM112  (systemd spells it so)


def _mac() -> Flat:
    """macOS: build, whether Rosetta translates this process, and the power mode (pmset needs no root)."""
    translated, sockets = _command("sysctl", "-n", "sysctl.proc_translated"), _command("sysctl", "-n", "hw.packages")
    power_mode = re.search(r"^\s*(?:low)?powermode\s+(\d)", _command("pmset", "-g") or "", re.MULTILINE)
    return {
        "macos_build": _command("sw_vers", "-buildVersion"),
        "cpu_sockets": _whole(sockets),
        "cpu_performance_cores": _whole(_command("sysctl", "-n", "hw.perflevel0.physicalcpu")),
        "rosetta": translated == "1" if translated is not None else None,
        "power_mode": power_mode.group(1) if power_mode else None,
    }


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _linux() -> Flat:
    cpu = "/sys/devices/system/cpu"
    no_turbo, boost = _first_line(f"{cpu}/intel_pstate/no_turbo"), _first_line(f"{cpu}/cpufreq/boost")
    packages = {_first_line(str(path)) for path in Path(cpu).glob("cpu[0-9]*/topology/physical_package_id")}
    max_khz = _whole(_first_line(f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq"))
    return {
        "distribution": _distribution(),
        "libc": " ".join(platform.libc_ver()) or None,
        "cpu_sockets": len(packages) or None,
        "cpu_max_clock_mhz": None if max_khz is None else max_khz / 1000,
        "cpu_microcode": _cpuinfo_field("microcode"),
        "cpu_governor": _first_line(f"{cpu}/cpu0/cpufreq/scaling_governor"),
        "cpu_energy_preference": _first_line(f"{cpu}/cpu0/cpufreq/energy_performance_preference"),
        "power_mode": _first_line("/sys/firmware/acpi/platform_profile"),
        "cpu_turbo": no_turbo == "0" if no_turbo is not None else boost == "1" if boost is not None else None,
        "cpu_smt": _first_line(f"{cpu}/smt/control"),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "transparent_hugepages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "container": _container(),
        "virtual_machine": "hypervisor" in (_cpuinfo_field("flags") or "").split(),
        "memory_limit_bytes": memory_limit(),
        "cpu_quota_cores": _cpu_quota(),
    }


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _cpuinfo_field(name: str) -> str | None:
    """The first processor's line of that name in /proc/cpuinfo; None where there is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None


CONTROL_GROUPS = Path("/sys/fs/cgroup")


def _control_groups(root: Path, own: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """Folders of the control group (version 2) that this process is in and of all that are around it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in own.read_text(encoding="utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                here = root / path.lstrip("/")
                yield from [here, *(parent for parent in here.parents if parent.is_relative_to(root))]


def memory_limit(root: Path = CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The tightest memory.max of this process's control groups, bytes; None where none is set."""
    limits = [_whole(_first_line(str(folder / "memory.max"))) for folder in _control_groups(root, own)]
    return min((limit for limit in limits if limit is not None), default=None)


def _cpu_quota(root: Path = CONTROL_GROUPS) -> float | None:
    """Cores' worth of time that the control groups allow; None where they set no limit."""
    quotas = []
    for folder in _control_groups(root):
        quota, _, period = (_first_line(str(folder / "cpu.max")) or "max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


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
        package, core = _first_line(f"{topology}/physical_package_id"), _first_line(f"{topology}/core_id")
        cores.setdefault((int(package or 0), int(core or cpu)), set()).add(cpu)
    share = len(cores) // parts
    mine = sorted(cores)[part * share : (part + 1) * share]
    if mine:  # with more ranks than cores the system decides
        os.sched_setaffinity(0, set().union(*(cores[core] for core in mine)))


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed, asked without any framework."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _mac_speed_limit() -> int | None:
    """What macOS lets the processor run at for heat, per cent (pmset needs no root); None where it does not tell."""
    found = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", _command("pmset", "-g", "therm") or "")
    return int(found.group(1)) if found else None


def _battery() -> Flat:
    """Whether the machine runs on its battery; None where there is none."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {"on_ac_power": battery.power_plugged if battery else None}


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


def _affinity() -> list[int] | None:
    """The logical processors that this process may use; None where that is all, or the system has no such thing."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed[:64] if allowed and len(allowed) < (psutil.cpu_count() or 0) else None


def _cuda_kernel_cache(environ: Mapping[str, str] = os.environ) -> str:
    """State of the driver's cache of kernels compiled on this machine, on which the time of a first step depends."""
    if environ.get("CUDA_CACHE_DISABLE") == "1":
        return "off"
    folder = Path(environ.get("CUDA_CACHE_PATH") or "~/.nv/ComputeCache").expanduser()
    return "warm" if folder.is_dir() and any(folder.iterdir()) else "cold"


MACHINE = ("system", "machine", "cpu_name", "cpu_logical_cores", "gpu_name", "gpu_count", "gpu_driver")
"""Facts that the phases of one result have in common; a machine where one of them differs is another."""


def collect(device: str = "cpu") -> Flat:
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
        "cpu_affinity": _affinity(),
        "memory_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "user_settings": user_settings(),
        **(_mac() if sys.platform == "darwin" else _linux()),
        **({"cuda_kernel_cache": _cuda_kernel_cache(), **nvml.facts()} if device == "cuda" else {}),
    }


def state(device: str, now: datetime) -> Flat:
    """What changes while a machine works: load, temperatures, clocks, power source; of the GPU too where one runs.

    Taken before and after a run, so that a reader sees a machine that was busy, hot or throttled. `now` is the time of
    day, as only measure/clock.py reads a clock.
    """
    temperatures = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    hottest = [sensor.current for sensors in temperatures.values() for sensor in sensors]
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_average_1min": psutil.getloadavg()[0],
        "uptime_seconds": round(now.timestamp() - psutil.boot_time()),
        "memory_available_bytes": psutil.virtual_memory().available,
        "swap_used_bytes": psutil.swap_memory().used,
        "hottest_sensor_celsius": max(hottest, default=None),
        "cpu_clock_mhz": frequency.current if frequency else None,
        **_battery(),
        **({"cpu_speed_limit_percent": _mac_speed_limit()} if sys.platform == "darwin" else {}),
        **(nvml.state() if device == "cuda" else {}),
    }


LOW_POWER = ("low-power", "quiet", "1")
"""Power modes that cost speed: Linux's platform profiles, and macOS's low power mode."""


def warnings(environment: Flat) -> list[str]:
    """What about this machine, in its facts and its state, may spoil a measurement, a sentence each."""
    found = []
    cores = environment["cpu_logical_cores"] or 1
    if environment["load_average_1min"] > 0.5 * cores:
        found.append(
            f"the machine was busy at the start: load average {environment['load_average_1min']:.1f} on {cores} cores"
        )
    if environment.get("gpu_foreign_processes"):
        found.append(f"{environment['gpu_foreign_processes']} other processes were on the GPU at the start")
    if reasons := [r for r in environment.get("gpu_throttle_reasons") or () if r != "gpu_idle"]:
        found.append(f"the GPU's clock was held down at the start already: {', '.join(reasons)}")
    if environment["on_ac_power"] is False:
        found.append("the machine ran on its battery")
    if environment.get("power_mode") in LOW_POWER:
        found.append("the machine was set to save power")
    if (limit := environment.get("cpu_speed_limit_percent")) is not None and limit < 100:
        found.append(f"the processor was held to {limit} % of its speed for heat at the start already")
    if environment.get("rosetta"):
        found.append("Python was translated by Rosetta: install a native arm64 Python")
    return found


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that `folder` lies in and whether it is clean; (None, None) outside a checkout."""
    commit = _command("git", "-C", str(folder), "rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, _command("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no") == ""


def software() -> Flat:
    """Versions of everything installed, and the commit (results.schema.json: software)."""
    commit, clean = git_state(Path(__file__).parent)
    packages = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {
        "shared_spec": __version__,
        "git_commit": commit,
        "git_clean": clean,
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
    }


def _private_words() -> list[str]:
    words = {socket.gethostname(), platform.node()}
    with contextlib.suppress(KeyError, OSError):  # no user name to hide
        words.add(getpass.getuser())
    # Short or generic names ("root", "user") tell nothing and would mangle ordinary words.
    return sorted((w for w in words if len(w) > 3 and w not in ("root", "user", "localhost")), key=len, reverse=True)


def scrub(value: Any) -> Any:
    """`value` with folders cut off paths and host and user names replaced, in every string within."""
    if isinstance(value, str):
        text = re.sub(
            r"(?<![\w.:/])(?!/(?:sys|dev)/)(?:~|/)[\w.+@~-]*(?:/[\w.+@~-]+)+",
            lambda found: found.group().rsplit("/", 1)[1],
            value,
        )
        for word in _private_words():
            text = re.sub(rf"\b{re.escape(word)}\b", "(hidden)", text)
        return text
    if isinstance(value, Mapping):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    return value
