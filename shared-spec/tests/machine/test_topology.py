"""Which cores and how much memory this process may use."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_system import CPUS, System, core_ultra_7_265k, i7_14700k

from shared_spec.errors import UserError
from shared_spec.machine import limits, topology
from shared_spec.platform import Threads


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr(sys, "platform", "linux")
    return System(tmp_path, monkeypatch)


def shares(monkeypatch: pytest.MonkeyPatch, parts: int, which: str = "performance") -> list[set[int]]:
    """The processors that each of `parts` processes keeps to."""
    kept: list[set[int]] = []
    monkeypatch.setattr(topology.os, "sched_setaffinity", lambda pid, cpus: kept.append(set(cpus)), raising=False)
    for part in range(parts):
        topology.take_core_share(part, parts, which)
    return kept


def test_lists_of_processors() -> None:
    assert topology.listed("0-3,8,10-11") == {0, 1, 2, 3, 8, 10, 11}
    assert topology.listed(None) == topology.listed("") == set()


def test_a_hybrid_processor_computes_on_its_performance_cores_a_thread_each(system: System) -> None:
    i7_14700k(system)
    assert topology.core_counts() == (8, 12)
    threads = topology.threads()
    assert threads == Threads(8, tuple((2 * core, 2 * core + 1) for core in range(8)))


def test_all_cores_where_they_are_asked_for(system: System) -> None:
    i7_14700k(system)
    threads = topology.threads(which="all")
    assert threads.count == 20
    assert threads.places is not None
    assert threads.places[7:9] == ((14, 15), (16,))


def test_performance_cores_are_found_by_the_list_and_not_by_their_number(system: System) -> None:
    core_ultra_7_265k(system)
    assert topology.threads().places == ((0,), (1,), (6,), (7,), (8,), (9,), (18,), (19,))


def test_arm_tells_its_kinds_of_cores_by_their_capacity(system: System) -> None:
    for cpu, capacity in enumerate((400, 400, 1024, 1024)):
        system.core(cpu, cpu)
        system.put({f"{CPUS}/cpu{cpu}/cpu_capacity": capacity})
    system.allow({0, 1, 2, 3})
    assert topology.threads().places == ((2,), (3,))


@pytest.mark.parametrize(
    ("allowed", "count"), [(set(range(16)), 8), ({0, 1, 2, 3}, 2), ({16, 17, 18}, 3), ({1, 20}, 1)]
)
def test_threads_count_cores_within_the_affinity_and_not_processors(
    system: System, allowed: set[int], count: int
) -> None:
    """`taskset -c 0-15` leaves 8 cores; where only efficiency cores are left, they compute."""
    i7_14700k(system)
    system.allow(allowed)
    assert topology.threads().count == count


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"/sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    ],
)
def test_threads_follow_the_quota_of_version_2(system: System, files: dict[str, str], count: int) -> None:
    i7_14700k(system)
    system.put({"/proc/self/cgroup": "0::/", **files})
    assert topology.threads().count == count


@pytest.mark.parametrize(("quota", "count"), [("250000", 2), ("-1", 8)])
@pytest.mark.parametrize("folder", ["cpu,cpuacct/docker/abc", "cpu,cpuacct", "cpu"])
def test_threads_follow_the_quota_of_version_1(system: System, quota: str, count: int, folder: str) -> None:
    """In a container the host's path is not there: the limits lie at the top, under one name or the other."""
    i7_14700k(system)
    place = f"/sys/fs/cgroup/{folder}"
    system.put({
        "/proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc",
        f"{place}/cpu.cfs_quota_us": quota, f"{place}/cpu.cfs_period_us": "100000",
    })  # fmt: skip
    assert topology.threads().count == count


def test_ranks_share_each_kind_of_core_evenly(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    i7_14700k(system)
    first, second = shares(monkeypatch, 2, "all")
    assert first == {*range(8), *range(16, 22)}
    assert second == {*range(8, 16), *range(22, 28)}
    assert topology.threads(2, "all") == Threads(10)
    assert shares(monkeypatch, 2) == [set(range(8)), set(range(8, 16))]
    assert topology.threads(2) == Threads(4)


def test_threads_of_ranks_are_no_more_than_the_cores_each_gets(system: System) -> None:
    i7_14700k(system)
    assert topology.threads(3, "all").count == 2 + 4


def test_a_process_that_computes_on_all_it_may_use_keeps_its_affinity(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    i7_14700k(system)
    assert shares(monkeypatch, 1, "all") == []
    assert shares(monkeypatch, 1) == [set(range(16))]


def test_threads_that_are_asked_for(system: System) -> None:
    i7_14700k(system)
    assert topology.threads(asked=2).places == ((0, 1), (2, 3))
    assert topology.threads(asked=12).places == tuple((cpu,) for cpu in range(12))
    with pytest.raises(UserError, match="--threads 17: that would not fit the 16 logical processors"):
        topology.threads(asked=17)
    with pytest.raises(UserError, match="at most 8"):
        topology.threads(2, asked=9)


@pytest.mark.parametrize(("physical", "allowed", "count"), [(16, {0, 1, 2}, 3), (2, {0, 1, 2, 3}, 2), (None, {0}, 1)])
def test_without_a_list_of_cores_they_are_counted(
    system: System, monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: set[int], count: int
) -> None:
    monkeypatch.setattr(topology.psutil, "cpu_count", lambda logical=True: 64 if logical else physical)
    system.allow(allowed)
    assert topology.threads() == Threads(count)


@pytest.mark.parametrize(("which", "count"), [("performance", 4), ("all", 10)])
def test_a_mac_tells_its_kinds_of_cores(
    system: System, monkeypatch: pytest.MonkeyPatch, which: str, count: int
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(topology, "allowed_cpus", lambda: None)
    levels = {"-n hw.perflevel0.physicalcpu": "4", "-n hw.perflevel1.physicalcpu": "6"}
    system.command("sysctl", levels)
    assert topology.core_counts() == (4, 6)
    assert topology.threads(which=which) == Threads(count)


@pytest.mark.parametrize(
    ("flags", "bf16"),
    [("fpu avx2 avx_vnni", False), ("fpu avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True)],
)
def test_instructions_for_bf16_are_among_the_flags(system: System, flags: str, bf16: bool) -> None:
    system.put({"/proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1"})
    assert topology.has_bf16() is bf16


def test_a_processor_that_tells_no_flags_is_not_known_to_lack_any(system: System) -> None:
    assert topology.has_bf16() is None


def memory_of_version_2(system: System) -> None:
    system.put({
        "/proc/self/cgroup": "4:memory:/elsewhere\n0::/user.slice/run.scope",
        "/sys/fs/cgroup/user.slice/run.scope/memory.max": "max", "/sys/fs/cgroup/user.slice/memory.max": 2147483648,
        "/sys/fs/cgroup/memory.max": 4294967296,
    })  # fmt: skip


def memory_of_version_1(system: System) -> None:
    system.put({
        "/proc/self/cgroup": "4:memory:/docker/abc",
        "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": 9223372036854771712,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": 2147483648,
    })  # fmt: skip


@pytest.mark.parametrize("prepare", [memory_of_version_2, memory_of_version_1])
def test_the_tightest_memory_limit_around_counts(system: System, prepare: Callable[[System], None]) -> None:
    assert limits.memory_limit() is None
    prepare(system)
    assert limits.memory_limit() == 2147483648


@pytest.mark.parametrize("error", [SystemError("returned NULL"), RuntimeError("no such key"), OSError(5, "I/O error")])
def test_counts_that_cannot_be_read_end_nothing(
    system: System, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(logical: bool = True) -> int:
        raise error

    monkeypatch.setattr(topology.psutil, "cpu_count", fail)
    monkeypatch.setattr(topology, "cores", list)  # a system that does not list them
    assert topology.threads().count >= 1
    assert topology.threads(asked=1) == Threads(1, None)
    topology.affinity()
