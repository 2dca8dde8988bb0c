"""Machines that are not at hand: their files under a folder, their commands as scripts, their own logical processors."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared_spec.machine import probe, topology

CPUS = "/sys/devices/system/cpu"


class System:
    """A machine of files under `root`; what is not put there it does not have.

    Commands are scripts in a folder that stands alone on the PATH, so that other processes find them too.
    """

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bin, self.monkeypatch = tmp_path / "root", tmp_path / "bin", monkeypatch
        self.root.mkdir()
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
        script = self.bin / name
        script.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}  *) exit 1;;\nesac\n')
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
