"""What a result may say of a machine, and what it must not."""

import socket
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from shared_spec.machine import facts
from shared_spec.measure.clock import utc_now
from shared_spec.results import privacy
from shared_spec.results.format import Facts
from shared_spec.schema import Model


def test_collected_facts_fit_the_schema_and_name_nobody() -> None:
    everything = {**facts.collect("cuda"), **facts.state("cpu", utc_now()), **facts.state("cuda", utc_now())}
    for name in ("gpu_temperature_celsius", "gpu_driver", "gpu_count", "gpu_memory_bytes"):
        assert name in everything  # null without a GPU, never missing
    TypeAdapter(Facts, config=Model.model_config).validate_python(privacy.scrub(everything))
    assert everything["uptime_seconds"] > 0
    assert everything["cpu_logical_cores"] >= 1
    assert everything["memory_bytes"] > 0
    assert socket.gethostname() not in str(privacy.scrub(everything))


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
    assert facts.warnings(calm) == []
    (warning,) = facts.warnings({**calm, **change})
    assert words in warning


def test_settings_of_the_user_that_matter_are_kept_and_no_others() -> None:
    environ = {
        "OMP_NUM_THREADS": "4", "KMP_BLOCKTIME": "1", "LD_PRELOAD": "/usr/lib/libjemalloc.so.2", "XLA_FLAGS": "--a=1",
        "HOME": "/home/ada", "AWS_SECRET_ACCESS_KEY": "x", "COMPANY_TOKEN": "x", "LD_PRELOADED": "x",
        "TF_VAR_password": "x", "TF_CLI_CONFIG_FILE": "x", "NVIDIA_API_KEY": "x", "MLX_JACCL_COORDINATOR": "10.0.0.1:1",
        "TORCH_ACCESS_TOKEN": "x", "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CONFIG": '{"cluster": {"worker": ["host:1"]}}', "NCCL_SOCKET_IFNAME": "eth0",
    }  # fmt: skip
    settings = facts.user_settings(environ)
    assert settings == [
        "KMP_BLOCKTIME=1", "LD_PRELOAD=/usr/lib/libjemalloc.so.2", "OMP_NUM_THREADS=4", "TF_ENABLE_ONEDNN_OPTS=1",
        "XLA_FLAGS=--a=1",
    ]  # fmt: skip
    assert privacy.scrub(settings)[1] == "LD_PRELOAD=libjemalloc.so.2"


def test_the_state_of_the_drivers_kernel_cache(tmp_path: Path) -> None:
    environ = {"CUDA_CACHE_PATH": str(tmp_path)}
    assert facts.cuda_kernel_cache(environ) == "cold"
    (tmp_path / "index").touch()
    assert facts.cuda_kernel_cache(environ) == "warm"
    assert facts.cuda_kernel_cache({**environ, "CUDA_CACHE_DISABLE": "1"}) == "off"
