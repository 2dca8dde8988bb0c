"""What NVML tells of a GPU, and what this process takes of it."""

import re
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fake_nvml import LIMIT, POWER, Board, Nvml

from shared_spec.machine import nvml


def test_gpu_state(board: Board) -> None:
    child = SimpleNamespace(pid=4242)
    board.processes = [psutil.Process().pid, child.pid]
    assert nvml.state(Nvml(board), {}) == {
        "gpu_temperature_celsius": 61,
        "gpu_memory_temperature_celsius": 70,
        "gpu_sm_clock_mhz": 1980,
        "gpu_memory_clock_mhz": 3201,
        "gpu_throttle_reasons": ["sw_power_cap", "hw_thermal_slowdown"],
        "gpu_power_watts": 500.0,
        "gpu_power_limit_watts": 700.0,
        "gpu_memory_free_bytes": 140 << 30,
        "gpu_utilisation_percent": 97,
        "gpu_foreign_processes": 1,
    }


def test_gpu_state_counts_no_child_as_foreign(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [SimpleNamespace(pid=4242)])
    board.processes = [4242]
    assert nvml.state(Nvml(board), {})["gpu_foreign_processes"] == 0


@pytest.mark.parametrize(("processes", "own", "foreign"), [([4242], 0, 1), ([4242], 1, 0), ([4242, 4343], 1, 1)])
def test_gpu_processes_of_another_namespace_are_foreign_but_for_ones_own(
    board: Board, processes: list[int], own: int, foreign: int
) -> None:
    """As in a container: NVML tells the host's numbers, in which no process can find itself."""
    board.processes = processes
    assert nvml.state(Nvml(board), {}, own)["gpu_foreign_processes"] == foreign


def test_gpu_facts(board: Board) -> None:
    assert nvml.facts(Nvml(board, Board(board.world, uuid="GPU-bbbb")), {}) == {
        "gpu_name": "NVIDIA H200",
        "gpu_count": 2,
        "gpu_driver": "575.57.08",
        "gpu_driver_cuda": "12.9",
        "gpu_memory_bytes": 141 << 30,
        "gpu_default_power_limit_watts": 700.0,
        "gpu_max_sm_clock_mhz": 1980,
        "gpu_max_memory_clock_mhz": 3201,
        "gpu_ecc": True,
        "gpu_mig": False,
        "gpu_compute_capability": "9.0",
        "gpu_display_active": False,
        "gpu_pcie_max_generation": 5,
        "gpu_pcie_max_width": 16,
        "gpu_pcie_generation": 5,
        "gpu_pcie_width": 16,
    }


def test_gpu_facts_and_state_are_none_without_driver(board: Board) -> None:
    module = Nvml(board)
    module.broken = True
    assert set(nvml.state(module, {}).values()) == {None}
    assert set(nvml.facts(module, {}).values()) == {None}


def test_gpu_memory_of_this_process(board: Board) -> None:
    """Found by its number; alone on the GPU, under whatever number; else not told."""
    here = psutil.Process().pid
    for processes, expected in (([4242, here], 1000 + here), ([4242], 5242), ([4242, 4343], None), ([], None)):
        board.processes = processes
        assert nvml.process_memory_bytes(Nvml(board), {}) == expected
    board.unsupported = {"nvmlDeviceGetComputeRunningProcesses"}
    assert nvml.process_memory_bytes(Nvml(board), {}) is None


def test_gpu_state_is_none_where_not_supported(board: Board) -> None:
    whole = nvml.state(Nvml(board), {})
    board.unsupported = {
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        POWER,
        LIMIT,
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
    }
    assert nvml.state(Nvml(board), {}) == dict.fromkeys(whole)


def test_nvml_names_and_numbers_are_those_of_the_bindings() -> None:
    pynvml = pytest.importorskip("pynvml", reason="NOT TESTED AGAINST THE BINDINGS: pip install nvidia-ml-py")
    folder = Path(nvml.__file__).parent
    source = (folder / "nvml.py").read_text() + (folder / "energy" / "nvml.py").read_text()
    functions = set(re.findall(r"nvml(?:Init|Device|System)\w*", source))
    assert len(functions) >= 20
    assert {name for name in functions if not hasattr(pynvml, name)} == set()
    assert nvml.TEMPERATURE_GPU == pynvml.NVML_TEMPERATURE_GPU
    assert nvml.FIELD_MEMORY_TEMPERATURE == pynvml.NVML_FI_DEV_MEMORY_TEMP
    assert nvml.MIG_ENABLED == pynvml.NVML_DEVICE_MIG_ENABLE
    assert (nvml.CLOCK_SM, nvml.CLOCK_MEMORY) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    for bit, name in nvml.THROTTLE_REASONS.items():
        assert getattr(pynvml, "nvmlClocksThrottleReason" + name.title().replace("_", "")) == bit
