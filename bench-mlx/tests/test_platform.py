import subprocess
import sys
from pathlib import Path

import pytest

from bench_mlx import platform
from bench_mlx.platform import PLATFORM, phase_env, worker_env
from shared_spec.errors import UserError
from shared_spec.platform import Threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="MLX's own BLAS is replaced on Linux only")


@pytest.fixture
def openblas(monkeypatch):
    monkeypatch.setattr(platform, "find_library", lambda name: f"lib{name}.so.0")
    monkeypatch.delenv("LD_PRELOAD", raising=False)


def test_is_known_without_the_framework():
    code = "import sys, bench_mlx.platform; sys.exit(any(name.split('.')[0] == 'mlx' for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_default_device_is_this_systems_best(monkeypatch):
    assert set(PLATFORM.devices) == {"gpu", "cuda", "cpu"}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert platform._devices()[0] == "gpu"
    monkeypatch.setattr(sys, "platform", "linux")
    for has_driver, best in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(platform, "has_nvidia_driver", lambda has_driver=has_driver: has_driver)
        assert platform._devices()[0] == best


@pytest.mark.parametrize("device", PLATFORM.devices)
def test_tf32_is_off_on_every_device(device):
    assert worker_env(device, "mlx", Threads(2))["MLX_ENABLE_TF32"] == "0"


def test_only_latency_on_cuda_goes_without_graphs_unless_the_user_says(monkeypatch):
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS", raising=False)
    assert phase_env("latency", "cuda") == {"MLX_USE_CUDA_GRAPHS": "0"}
    others = [("training", "cuda"), ("inference", "cuda"), ("latency", "gpu"), ("latency", "cpu")]
    assert not any(phase_env(*other) for other in others)
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "1")
    assert phase_env("latency", "cuda") == {"MLX_USE_CUDA_GRAPHS": "1"}


@linux
@pytest.mark.usefixtures("openblas")
def test_openblas_is_preloaded_for_the_cpu_alone():
    env = worker_env("cpu", "mlx", Threads(2))
    assert env["LD_PRELOAD"] == "libopenblas.so.0"
    assert env["OPENBLAS_NUM_THREADS"] == "2"
    assert "LD_PRELOAD" not in worker_env("cuda", "mlx", Threads(2))


@linux
@pytest.mark.usefixtures("openblas")
def test_what_is_preloaded_already_stays(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so.2")
    assert worker_env("cpu", "mlx", Threads(2))["LD_PRELOAD"].split() == ["libopenblas.so.0", "libjemalloc.so.2"]
    monkeypatch.setenv("LD_PRELOAD", "/opt/lib/libopenblas.so.0")
    assert worker_env("cpu", "mlx", Threads(2))["LD_PRELOAD"] == "/opt/lib/libopenblas.so.0"


@linux
@pytest.mark.usefixtures("openblas")
def test_nothing_is_preloaded_where_openblas_is_not_installed(monkeypatch):
    monkeypatch.setattr(platform, "find_library", lambda name: None)
    assert "LD_PRELOAD" not in worker_env("cpu", "mlx", Threads(2))


@pytest.mark.parametrize(
    ("left", "unset"),
    [
        ({"MLX_HOSTFILE": "/gone/hosts.json", "MLX_RANK": "0"}, "unset MLX_HOSTFILE MLX_RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "unset OMPI_COMM_WORLD_RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "x", "OMPI_COMM_WORLD_RANK": "0"}, "unset OMPI_COMM_WORLD_RANK"),
        ({"NCCL_HOST_IP": "10.0.0.1"}, "unset MLX_RANK"),
    ],
)
def test_what_another_job_has_left_is_to_be_unset(left, unset, monkeypatch):
    for name in platform.LAUNCHER_ENV:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=unset):
        platform.world()


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]", "[[]]"])
def test_a_hostfile_that_is_something_else_is_named(content, tmp_path, monkeypatch):
    (tmp_path / "hosts.json").write_text(content)
    for name in platform.LAUNCHER_ENV:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    monkeypatch.setenv("MLX_RANK", "0")
    with pytest.raises(UserError, match="unset MLX_HOSTFILE"):
        platform.world()


def test_caches_of_compiled_programs() -> None:
    env = {"MLX_PTX_CACHE_DIR": "/a", "CUDA_CACHE_PATH": "/b"}
    assert PLATFORM.program_caches("cuda", "mlx", env) == [Path("/a"), Path("/b")]
    (kept,) = PLATFORM.program_caches("cpu", "mlx", {}) or []
    assert kept.parent.name == "mlx"
    assert PLATFORM.program_caches("gpu", "mlx", env) is None  # macOS keeps Metal's, and does not tell where
