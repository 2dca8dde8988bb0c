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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cpuinfo
import psutil

from shared_spec import __version__
from shared_spec.energy import nvml

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
    translated = _command("sysctl", "-n", "sysctl.proc_translated")
    power_mode = re.search(r"^\s*(?:low)?powermode\s+(\d)", _command("pmset", "-g") or "", re.MULTILINE)
    return {
        "macos_build": _command("sw_vers", "-buildVersion"),
        "rosetta": translated == "1" if translated is not None else None,
        "power_mode": power_mode.group(1) if power_mode else None,
    }


def _linux() -> Flat:
    cpu = "/sys/devices/system/cpu"
    no_turbo = _first_line(f"{cpu}/intel_pstate/no_turbo")
    return {
        "cpu_governor": _first_line(f"{cpu}/cpu0/cpufreq/scaling_governor"),
        "cpu_turbo": no_turbo == "0" if no_turbo is not None else None,
        "cpu_smt": _first_line(f"{cpu}/smt/control"),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "transparent_hugepages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "container": _container(),
    }


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


def _battery() -> Flat:
    """Whether the machine runs on its battery; None where there is none."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {"on_ac_power": battery.power_plugged if battery else None}


def collect() -> Flat:
    """Facts of system, processor and memory, by name (results.schema.json: environment)."""
    info = cpuinfo.get_cpu_info()
    return {
        "system": platform.system(),
        "system_release": platform.release(),
        "machine": platform.machine(),
        "cpu_name": info.get("brand_raw"),
        "cpu_flags": [flag for flag in info.get("flags", []) if flag.startswith(("amx", "avx", "sve", "bf16"))][:64],
        "cpu_physical_cores": psutil.cpu_count(logical=False),
        "cpu_logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        **(_mac() if sys.platform == "darwin" else _linux()),
    }


def state(device: str) -> Flat:
    """What changes while a machine works: load, temperatures, clocks, power source; of the GPU too where one runs.

    Taken before and after a run, so that a reader sees a machine that was busy, hot or throttled.
    """
    temperatures = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    hottest = [sensor.current for sensors in temperatures.values() for sensor in sensors]
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "load_average_1min": psutil.getloadavg()[0],
        "swap_used_bytes": psutil.swap_memory().used,
        "hottest_sensor_celsius": max(hottest, default=None),
        "cpu_clock_mhz": frequency.current if frequency else None,
        **_battery(),
        **(nvml.state() if device == "cuda" else {}),
    }


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
    if environment["on_ac_power"] is False:
        found.append("the machine ran on its battery")
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
