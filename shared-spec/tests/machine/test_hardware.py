"""Facts that decide a machine's results, on machines that are not at hand."""

import sys
from pathlib import Path

import pytest
from fake_system import System, i7_desktop, m4_mini, rtx_4070_desktop, wsl2

from shared_spec.machine import devices, facts, hardware
from shared_spec.measure.clock import utc_now


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def test_a_mac_tells_its_model_and_its_chip(system: System) -> None:
    m4_mini(system)
    told = facts.collect("gpu")
    expected = {
        "mac_model": "Mac16,10", "gpu_cores": 10, "gpu_wired_limit_bytes": None, "cpu_performance_cores": 4,
        "cpu_efficiency_cores": 6, "macos_build": "24G90", "rosetta": False, "power_mode": "1",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert facts.state("gpu", utc_now())["thermal_pressure"] == "nominal"


@pytest.mark.parametrize(("answer", "pressure"), [("x 2", "heavy"), ("x 9", None), ("", None), ("x failed", None)])
def test_thermal_pressure_of_a_mac(system: System, answer: str, pressure: str | None) -> None:
    system.command("notifyutil", {"-g com.apple.system.thermalpressurelevel": answer})
    assert hardware.mac_state() == {"thermal_pressure": pressure}


def test_a_wired_limit_that_the_user_has_set(system: System) -> None:
    system.monkeypatch.setattr(sys, "platform", "darwin")
    system.command("sysctl", {"-n iogpu.wired_limit_mb": "14336"})
    assert hardware.facts()["gpu_wired_limit_bytes"] == 14 << 30


def test_an_intel_desktop_tells_power_limits_kinds_of_cores_and_memory(system: System) -> None:
    i7_desktop(system)
    told = facts.collect("cpu")
    expected = {
        "cpu_power_limit_long_watts": 125.0, "cpu_power_limit_short_watts": 253.0, "cpu_performance_cores": 8,
        "cpu_efficiency_cores": 12, "memory_modules": 2, "memory_channels": 2, "memory_type": "DDR5",
        "memory_speed_mts": 4800, "wsl": False,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected


def test_an_nvidia_desktop_tells_display_link_and_limits(system: System) -> None:
    rtx_4070_desktop(system)
    told = {**facts.collect("cuda"), **facts.state("cuda", utc_now())}
    expected = {
        "gpu_compute_capability": "8.9", "gpu_display_active": True, "gpu_pcie_max_generation": 5,
        "gpu_pcie_max_width": 16, "gpu_memory_free_bytes": 11 << 30, "gpu_power_limit_watts": 200.0,
        "gpu_default_power_limit_watts": 700.0,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected


def test_wsl_is_known_by_its_kernel(system: System) -> None:
    assert not hardware.is_wsl()
    wsl2(system)
    assert hardware.is_wsl()


def test_what_a_bare_system_does_not_tell_is_null(system: System) -> None:
    system.monkeypatch.setattr(sys, "platform", "linux")
    system.allow({0})
    assert {name for name, value in hardware.facts().items() if value is not None} == {"wsl"}


@pytest.mark.parametrize(
    ("name", "precision", "cores", "tflops"),
    [
        ("Apple M4", "fp32", 10, 1.8), ("Apple M4 Max", "bf16", 40, 7.2), ("Apple M1", "fp32", None, 1.46),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "fp32", None, 18.0), ("NVIDIA GeForce RTX 4070", "fp32", None, 13.1),
        ("NVIDIA GeForce RTX 3080", "bf16", None, 23.8), ("NVIDIA H100 80GB HBM3", "bf16", None, 178.0),
        ("NVIDIA L40S", "fp32", None, 41.2), ("NVIDIA L4", "fp32", None, 13.6), (None, "fp32", None, 10.0),
    ],
)  # fmt: skip
def test_a_device_is_thought_to_be_as_fast_as_its_name_says(
    name: str | None, precision: str, cores: int | None, tflops: float
) -> None:
    assert devices.training_flops(name, precision, cores) == pytest.approx(1e12 * tflops, rel=0.01)
