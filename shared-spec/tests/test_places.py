"""Caches and temporary folders on machines that are not one's own."""

import os
import stat
from pathlib import Path

import pytest

from shared_spec import places
from shared_spec.errors import UserError
from shared_spec.machine import facts


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_home_the_cache_is_in_a_folder_of_ones_own(homeless: Path) -> None:
    folder = places.cache("deit-bench")
    assert folder == homeless / f"deit-bench-{os.getuid()}" / "deit-bench"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not places.is_usual(folder)
    assert not (homeless / "~").exists()
    facts.cuda_kernel_cache({})


# 13: temporary folders that others share


def test_a_temporary_folder_that_others_can_write_to_is_not_used(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = homeless / f"deit-bench-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert not places.temporary("x").is_relative_to(planted)


def test_a_temporary_folder_that_cannot_serve_is_named_with_tmpdir(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noexec = os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, 1 << 30, 9, 9, 9, places.NO_EXEC, 255))
    monkeypatch.setattr(os, "statvfs", lambda folder: noexec)
    places.temporary("x")
    with pytest.raises(UserError, match=r"noexec.*Set TMPDIR to a folder of your own .* programs may be run from"):
        places.temporary("x", run_from=True)
    full = os.statvfs_result((4096, 4096, 1, 1, 1, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    with pytest.raises(UserError, match="TMPDIR"):
        places.temporary("x", needed=1 << 20)


def test_a_user_whom_the_system_does_not_know_has_a_name(homeless: Path) -> None:
    for name in ("LNAME", "USERNAME"):
        os.environ.pop(name, None)
    places.name_the_user()
    try:
        assert os.environ["LOGNAME"] == f"uid-{os.getuid()}"
    finally:
        del os.environ["LOGNAME"]
