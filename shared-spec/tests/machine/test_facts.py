"""What a result may say of a machine, and what it must not."""

import getpass
import socket
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from shared_spec.machine import facts as machine_facts
from shared_spec.results.format import Facts
from shared_spec.schema import Model


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", "libopenblas.so.0"),
        ("--xla_gpu_cuda_data_dir=/opt/cuda/12 --other=1", "--xla_gpu_cuda_data_dir=12 --other=1"),
        ("ValueError in /home/ada/x y/file.py", "ValueError in x y/file.py"),
        ("~/private/place", "place"),
        ("run `sudo chmod -R a+r /sys/class/powercap`", "run `sudo chmod -R a+r /sys/class/powercap`"),
        ("1.5 images/s on n/a, GB/s", "1.5 images/s on n/a, GB/s"),
        ("https://pytorch.org/docs/stable", "https://pytorch.org/docs/stable"),
    ],
)
def test_paths_lose_their_folders(text: str, clean: str) -> None:
    assert machine_facts.scrub(text) == clean


def test_host_and_user_are_hidden_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "adas-macbook")
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    value = {"a": ["run by lovelace on adas-macbook", 3, None], "b": {"c": "Lovelace is a surname"}}
    assert machine_facts.scrub(value) == {
        "a": ["run by (hidden) on (hidden)", 3, None],
        "b": {"c": "Lovelace is a surname"},
    }


def test_collected_facts_fit_the_schema_and_name_nobody() -> None:
    facts = {**machine_facts.collect("cuda"), **machine_facts.state("cpu"), **machine_facts.state("cuda")}
    for name in ("gpu_temperature_celsius", "gpu_driver", "gpu_count", "gpu_memory_bytes"):
        assert name in facts  # null without a GPU, never missing
    TypeAdapter(Facts, config=Model.model_config).validate_python(machine_facts.scrub(facts))
    assert facts["uptime_seconds"] > 0
    assert facts["cpu_logical_cores"] >= 1
    assert facts["memory_bytes"] > 0
    assert socket.gethostname() not in str(machine_facts.scrub(facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load_average_1min": 7.0}, "busy"),
        ({"on_ac_power": False}, "battery"),
        ({"rosetta": True}, "Rosetta"),
        ({"gpu_foreign_processes": 2}, "2 other processes"),
        ({"gpu_throttle_reasons": ["gpu_idle", "hw_slowdown"]}, "held down at the start already: hw_slowdown"),
        ({"power_mode": "low-power"}, "save power"),
        ({"cpu_speed_limit_percent": 80}, "held to 80 %"),
    ],
)
def test_warnings(change: dict[str, object], words: str) -> None:
    calm = {"cpu_logical_cores": 2, "load_average_1min": 0.1, "on_ac_power": None, "rosetta": None}
    assert machine_facts.warnings(calm) == []
    (warning,) = machine_facts.warnings({**calm, **change})
    assert words in warning


@pytest.mark.parametrize(("physical", "allowed", "usable"), [(16, {0, 1, 2}, 3), (2, {0, 1, 2, 3}, 2), (None, {0}, 1)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: set[int], usable: int) -> None:
    monkeypatch.setattr(machine_facts.psutil, "cpu_count", lambda logical=True: 64 if logical else physical)
    monkeypatch.setattr(machine_facts.os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert machine_facts.usable_cores() == usable


def test_settings_of_the_user_that_matter_are_kept_and_no_others() -> None:
    environ = {
        "OMP_NUM_THREADS": "4", "KMP_BLOCKTIME": "1", "LD_PRELOAD": "/usr/lib/libjemalloc.so.2", "XLA_FLAGS": "--a=1",
        "HOME": "/home/ada", "AWS_SECRET_ACCESS_KEY": "x", "COMPANY_TOKEN": "x", "LD_PRELOADED": "x",
        "TF_VAR_password": "x", "TF_CLI_CONFIG_FILE": "x", "NVIDIA_API_KEY": "x", "MLX_JACCL_COORDINATOR": "10.0.0.1:1",
        "TORCH_ACCESS_TOKEN": "x", "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CONFIG": '{"cluster": {"worker": ["host:1"]}}', "NCCL_SOCKET_IFNAME": "eth0",
    }  # fmt: skip
    found = machine_facts.user_settings(environ)
    assert found == [
        "KMP_BLOCKTIME=1", "LD_PRELOAD=/usr/lib/libjemalloc.so.2", "OMP_NUM_THREADS=4", "TF_ENABLE_ONEDNN_OPTS=1",
        "XLA_FLAGS=--a=1",
    ]  # fmt: skip
    assert machine_facts.scrub(found)[1] == "LD_PRELOAD=libjemalloc.so.2"


def test_the_state_of_the_drivers_kernel_cache(tmp_path: Path) -> None:
    environ = {"CUDA_CACHE_PATH": str(tmp_path)}
    assert machine_facts._cuda_kernel_cache(environ) == "cold"
    (tmp_path / "index").touch()
    assert machine_facts._cuda_kernel_cache(environ) == "warm"
    assert machine_facts._cuda_kernel_cache({**environ, "CUDA_CACHE_DISABLE": "1"}) == "off"


def test_the_tightest_memory_limit_around_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/elsewhere\n0::/user.slice/run.scope\n")
    root = tmp_path / "fs"
    (root / "user.slice" / "run.scope").mkdir(parents=True)
    assert machine_facts.memory_limit(root, own) is None
    (root / "user.slice" / "run.scope" / "memory.max").write_text("max\n")
    assert machine_facts.memory_limit(root, own) is None
    (root / "user.slice" / "memory.max").write_text("2147483648\n")
    (root / "memory.max").write_text("4294967296\n")
    assert machine_facts.memory_limit(root, own) == 2147483648
    assert machine_facts.memory_limit(root, tmp_path / "none") is None


def test_git_state_outside_a_checkout(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert machine_facts.git_state(tmp_path) == (None, None)
