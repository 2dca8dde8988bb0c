"""Which cores and how much memory this process may use."""

from pathlib import Path

import pytest

from shared_spec.machine import topology


@pytest.mark.parametrize(("physical", "allowed", "usable"), [(16, {0, 1, 2}, 3), (2, {0, 1, 2, 3}, 2), (None, {0}, 1)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: set[int], usable: int) -> None:
    monkeypatch.setattr(topology.psutil, "cpu_count", lambda logical=True: 64 if logical else physical)
    monkeypatch.setattr(topology.os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert topology.usable_cores() == usable


def test_the_tightest_memory_limit_around_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/elsewhere\n0::/user.slice/run.scope\n")
    root = tmp_path / "fs"
    (root / "user.slice" / "run.scope").mkdir(parents=True)
    assert topology.memory_limit(root, own) is None
    (root / "user.slice" / "run.scope" / "memory.max").write_text("max\n")
    assert topology.memory_limit(root, own) is None
    (root / "user.slice" / "memory.max").write_text("2147483648\n")
    (root / "memory.max").write_text("4294967296\n")
    assert topology.memory_limit(root, own) == 2147483648
    assert topology.memory_limit(root, tmp_path / "none") is None
