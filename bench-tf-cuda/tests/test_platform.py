"""What the parent process relies on before TensorFlow is imported."""

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from bench_tf_cuda import kept, platform
from shared_spec import places
from shared_spec.errors import UserError
from shared_spec.machine import caches
from shared_spec.platform import Threads

tf_version = version("tensorflow")


def test_importing_the_platform_imports_no_framework() -> None:
    program = "import sys, bench_tf_cuda.platform; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder for caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    return tmp_path


def test_compiled_programs_are_kept_on_a_gpu_and_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TF_XLA_FLAGS" not in platform.worker_env("cpu", "xla", Threads(2))
    monkeypatch.setenv("TF_XLA_FLAGS", "--xla_foo=1")
    env = platform.worker_env("cuda", "xla", Threads(2))
    own, _, folder = env["TF_XLA_FLAGS"].partition(f" {kept.FLAG}")
    assert own == "--xla_foo=1"
    assert Path(folder).is_relative_to(home)
    assert tf_version in folder
    (Path(folder) / "program.pb").touch()
    assert caches.programs(platform.program_caches("cuda", "xla", env | {"CUDA_CACHE_DISABLE": "1"})) == 1


def test_ranks_of_a_host_keep_their_programs_apart(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", platform.worker_env("cuda", "xla", Threads(2))["TF_XLA_FLAGS"])
    folders = {start.env["TF_XLA_FLAGS"].removeprefix(kept.FLAG) for start in platform.launch(2, "cuda", [])}
    assert len(folders) == 2
    assert all(Path(folder).is_dir() for folder in folders)
    monkeypatch.setenv("TF_CONFIG", platform.launch(2, "cuda", [])[1].env["TF_CONFIG"])
    assert platform.worker_env("cuda", "xla", Threads(2))["TF_XLA_FLAGS"].removeprefix(kept.FLAG) in folders
    assert all("TF_XLA_FLAGS" not in start.env for start in platform.launch(2, "cpu", []))


def test_a_program_cut_short_is_removed_and_a_whole_one_stays(home: Path) -> None:
    folder = Path(platform.worker_env("cuda", "xla", Threads(2))["TF_XLA_FLAGS"].removeprefix(kept.FLAG))
    whole = b"\x0a\x02ab" + b"\x12\xc8\x01" + b"m" * 200 + b"\x1a\x81\x02" + b"x" * 257
    (folder / "whole.pb").write_bytes(whole)
    for length in range(len(whole)):
        (folder / f"{length}.pb").write_bytes(whole[:length])
    platform.worker_env("cuda", "xla", Threads(2))
    assert [path.name for path in folder.iterdir()] == ["whole.pb"]


def test_without_a_folder_for_caches_nothing_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_place(name: str) -> Path:
        raise UserError("no folder takes files")

    monkeypatch.setattr(places, "cache", no_place)
    assert "TF_XLA_FLAGS" not in platform.worker_env("cuda", "xla", Threads(2))


def test_programs_of_another_driver_or_version_go_after_a_month(home: Path) -> None:
    kinds = {"xla-1.0/programs-0-old": 40, "xla-1.0/programs-0-new": 20}
    for name, days in kinds.items():
        folder = home / places.CACHE / name
        folder.mkdir(parents=True)
        (folder / "a.pb").touch()
        os.utime(folder, (time.time() - days * 86400,) * 2)
    platform.worker_env("cuda", "xla", Threads(2))
    assert [(home / places.CACHE / name).exists() for name in kinds] == [False, True]


@pytest.mark.parametrize("flags", [f"--xla_foo=1 {kept.FLAG}/mine", "/etc/xla_flags"])
def test_a_users_own_folder_or_file_of_flags_stays(home: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    monkeypatch.setenv("TF_XLA_FLAGS", flags)
    assert "TF_XLA_FLAGS" not in platform.worker_env("cuda", "xla", Threads(2))


def test_only_the_cpu_worker_hides_the_gpu_and_has_products_by_onednn() -> None:
    assert platform.worker_env("cpu", "xla", Threads(2))["CUDA_VISIBLE_DEVICES"] == "-1"
    assert platform.worker_env("cpu", "xla", Threads(2))["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert platform.worker_env("cuda", "xla", Threads(2))["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in platform.worker_env("cuda", "xla", Threads(2))


@pytest.mark.parametrize(("driver", "first"), [(True, "cuda"), (False, "cpu")])
def test_default_device_is_the_gpu_where_a_driver_is(monkeypatch: pytest.MonkeyPatch, driver: bool, first: str) -> None:
    monkeypatch.setattr(platform, "has_nvidia_driver", lambda: driver)
    assert platform._devices()[0] == first


def test_threads_are_those_of_this_process():
    assert platform.worker_env("cpu", "xla", Threads(8))["TF_NUM_INTRAOP_THREADS"] == "8"
    assert "TF_NUM_INTRAOP_THREADS" not in platform.worker_env("cuda", "xla", Threads(8))


def test_caches_of_compiled_programs_are_those_of_the_users_flags_and_of_the_driver() -> None:
    flags = "--xla_foo=1 --xla_gpu_per_fusion_autotune_cache_dir=/a/b"
    env = {"XLA_FLAGS": flags, "TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=/c", "CUDA_CACHE_PATH": "/d"}
    assert platform.program_caches("cuda", "xla", env) == [Path("/a/b"), Path("/c"), Path("/d")]
    assert platform.program_caches("cpu", "xla", {}) == []
