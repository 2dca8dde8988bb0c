"""What the parent process relies on before TensorFlow is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench_tf_cuda import platform
from shared_spec.platform import Threads


def test_importing_the_platform_imports_no_framework() -> None:
    program = "import sys, bench_tf_cuda.platform; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_worker_env_leaves_the_users_xla_flags(device: str) -> None:
    assert "XLA_FLAGS" not in platform.worker_env(device, "xla", Threads(2))


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
