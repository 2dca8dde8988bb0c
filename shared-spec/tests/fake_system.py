"""Machines that are not at hand: their files under a folder, their commands as scripts, their own logical processors."""

import platform
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fake_meters import World
from fake_nvml import Board, Nvml

from shared_spec.machine import probe, topology
from shared_spec.machine.energy import rapl
from shared_spec.machine.energy.meter import Clock, Meter, NoMeter

CPUS = "/sys/devices/system/cpu"


class System:
    """A machine of files under `root`; what is not put there it does not have.

    Commands are scripts in a folder that stands alone on the PATH, so that other processes find them too.
    """

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bin, self.monkeypatch = tmp_path / "root", tmp_path / "bin", monkeypatch
        self.root.mkdir(parents=True)
        self.bin.mkdir()
        monkeypatch.setattr(probe, "ROOT", self.root)
        monkeypatch.setenv("PATH", str(self.bin))

    def put(self, files: Mapping[str, object]) -> None:
        """Write files by their absolute paths, a line each."""
        for path, content in files.items():
            place = self.root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{content}\n")

    def allow(self, cpus: set[int]) -> None:
        """The logical processors that this process may use."""
        self.monkeypatch.setattr(topology, "allowed_cpus", lambda: set(cpus))

    def core(self, number: int, *cpus: int, package: int = 0) -> None:
        """A physical core with these logical processors."""
        for cpu in cpus:
            self.put(
                {f"{CPUS}/cpu{cpu}/topology/physical_package_id": package, f"{CPUS}/cpu{cpu}/topology/core_id": number}
            )

    def command(self, name: str, answers: Mapping[str, str]) -> None:
        """A command that prints an answer by its words, and fails on others."""
        cases = "".join(
            f"  {shlex.quote(words)}) printf '%s\\n' {shlex.quote(text)};;\n" for words, text in answers.items()
        )
        self.program(name, f'case "$*" in\n{cases}  *) exit 1;;\nesac')

    def program(self, name: str, body: str) -> None:
        """A command that does what a shell script says."""
        script = self.bin / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)


def i7_14700k(system: System) -> None:
    """8 performance cores of two threads (0-15), 12 efficiency cores (16-27), as Linux numbers them."""
    for core in range(8):
        system.core(4 * core, 2 * core, 2 * core + 1)
    for core in range(12):
        system.core(32 + core, 16 + core)
    system.put({"/sys/devices/cpu_core/cpus": "0-15", "/sys/devices/cpu_atom/cpus": "16-27"})
    system.allow(set(range(28)))


def core_ultra_7_265k(system: System) -> None:
    """8 performance cores without a second thread, 12 efficiency cores, numbered in turns."""
    fast = (0, 1, 6, 7, 8, 9, 18, 19)
    for cpu in range(20):
        system.core(cpu, cpu)
    system.put({
        "/sys/devices/cpu_core/cpus": "0-1,6-9,18-19", "/sys/devices/cpu_atom/cpus": "2-5,10-17",
    })  # fmt: skip
    assert len(fast) == 8
    system.allow(set(range(20)))


def is_a(
    system: System,
    kind: str,
    *,
    name: str,
    memory: int,
    free: int,
    physical: int,
    logical: int,
    machine: str = "x86_64",
) -> None:
    """What psutil, platform and cpuinfo tell of the machine, whose system is "linux" or "darwin"; it is calm."""
    patch = system.monkeypatch.setattr
    patch(sys, "platform", kind)
    patch(platform, "system", kind.title)
    patch(platform, "machine", lambda: machine)
    patch("cpuinfo.get_cpu_info", lambda: {"brand_raw": name, "flags": []})
    patch(psutil, "virtual_memory", lambda: SimpleNamespace(total=memory, available=free))
    patch(psutil, "cpu_count", lambda logical_too=True, logical=True: count[bool(logical and logical_too)])
    patch(psutil, "getloadavg", lambda: (0.2, 0.2, 0.2))
    patch(psutil, "sensors_battery", lambda: None, raising=False)
    count = {True: logical, False: physical}


def gpu(system: System, board: Board, driver: str, cuda: int) -> None:
    """An NVIDIA card in the machine."""
    module = Nvml(board)
    module.driver, module.cuda = driver, cuda
    system.monkeypatch.setitem(sys.modules, "pynvml", module)  # type: ignore[arg-type]  # it stands in for one


M4_MINI = {
    "sysctl": {
        "-n hw.perflevel0.physicalcpu": "4", "-n hw.perflevel1.physicalcpu": "6", "-n hw.packages": "1",
        "-n hw.model": "Mac16,10", "-n iogpu.wired_limit_mb": "0", "-n machdep.cpu.brand_string": "Apple M4",
        "-n hw.optional.arm.FEAT_BF16": "1", "-n sysctl.proc_translated": "0",
    },
    "sw_vers": {"-buildVersion": "24G90"},
    "pmset": {"-g": " powermode            1", "-g therm": "CPU_Speed_Limit \t= 100"},
    "ioreg": {"-rc AGXAccelerator -d 1": '+-o AGXAcceleratorG16G  <class AGXAcceleratorG16G>\n  | "gpu-core-count" = 10'},
    "notifyutil": {"-g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 0"},
}  # fmt: skip
"""Commands of a Mac mini with an M4, in low power mode, and what they print."""


def m4_mini(system: System) -> None:
    """A Mac mini with an M4 and 16 GB, in low power mode."""
    is_a(system, "darwin", name="Apple M4", memory=16 << 30, free=9 << 30, physical=10, logical=10, machine="arm64")
    for name, answers in M4_MINI.items():
        system.command(name, answers)
    system.program("caffeinate", 'while kill -0 "$3"; do read -t 1 x || :; done')
    system.monkeypatch.setattr(topology, "allowed_cpus", lambda: None)


def rtx_4070_desktop(system: System) -> None:
    """A desktop with an RTX 4070, its display on the card, and a driver that is older than the CUDA libraries."""
    is_a(system, "linux", name="AMD Ryzen 7 7700", memory=32 << 30, free=24 << 30, physical=8, logical=16)
    for core in range(8):
        system.core(core, core, core + 8)
    system.allow(set(range(16)))
    board = Board(World(), "NVIDIA GeForce RTX 4070")
    board.memory, board.free, board.capability, board.display, board.limit_watts = 12 << 30, 11 << 30, (8, 9), 1, 200
    board.throttle = 0x1
    gpu(system, board, "550.144.03", 12040)
    system.program("systemd-inhibit", "exec /bin/cat")


def wsl2(system: System) -> None:
    """Windows with an RTX 3080 of 10 GB, seen from Linux in WSL2."""
    is_a(system, "linux", name="Intel Core i9-10900K", memory=15 << 30, free=13 << 30, physical=8, logical=16)
    system.put({"/proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2"})
    board = Board(World(), "NVIDIA GeForce RTX 3080")
    board.memory, board.free, board.capability = 10 << 30, 3 << 30, (8, 6)
    board.unsupported |= {
        "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    }  # fmt: skip
    gpu(system, board, "580.88", 13000)


def i7_desktop(system: System) -> None:
    """A desktop with a Core i7-14700K, where root alone may read the energy counters."""
    i7_14700k(system)
    is_a(system, "linux", name="Intel(R) Core(TM) i7-14700K", memory=64 << 30, free=60 << 30, physical=20, logical=28)
    zone = "/sys/class/powercap/intel-rapl:0"
    system.put({
        "/proc/cpuinfo": "flags\t\t: fpu avx2 avx_vnni", f"{zone}/name": "package-0",
        f"{zone}/constraint_0_name": "long_term", f"{zone}/constraint_0_power_limit_uw": 125000000,
        f"{zone}/constraint_1_name": "short_term", f"{zone}/constraint_1_power_limit_uw": 253000000,
        f"{zone}/max_energy_range_uj": 262143328850,
        f"{CPUS}/cpu0/cpufreq/energy_performance_preference": "balance_power",
    })  # fmt: skip
    memory = {f"MEMORY_DEVICE_{i}_{name}": value for i in (0, 1) for name, value in (
        ("SIZE", 34359738368), ("TYPE", "DDR5"), ("SPEED_MTS", 5600), ("CONFIGURED_SPEED_MTS", 4800 + 400 * i),
        ("LOCATOR", f"Controller{i}-DIMM1"), ("BANK_LOCATOR", f"Channel {'AB'[i]}"),
    )}  # fmt: skip
    lines = "\n".join(f"{name}={value}" for name, value in memory.items())
    system.command("udevadm", {"info -q property -p /sys/devices/virtual/dmi/id": lines})
    system.monkeypatch.setattr(rapl, "open_meter", partial(forbidden, root=system.root / zone.lstrip("/")))


def forbidden(clock: Clock, root: Path) -> Meter:
    """The counters of a machine that lets root alone read them; these tests may run as root."""
    assert (root / "name").exists()
    raise NoMeter(f"only root may read the processor's energy counters; `{rapl.PERMIT}` lets everybody")


def container(system: System) -> None:
    """A container on a server: two cores' worth of time and 4 GB, and no file of the processor's energy."""
    is_a(system, "linux", name="Intel(R) Xeon(R)", memory=64 << 30, free=3 << 30, physical=16, logical=32)
    for core in range(16):
        system.core(core, core, core + 16)
    system.allow(set(range(32)))
    system.put({
        "/.dockerenv": "", "/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "200000 100000",
        "/sys/fs/cgroup/memory.max": 4 << 30, "/proc/cpuinfo": "flags\t\t: fpu avx512f avx512_bf16",
    })  # fmt: skip
    system.monkeypatch.setattr(rapl, "open_meter", partial(rapl.open_meter, root=system.root))
