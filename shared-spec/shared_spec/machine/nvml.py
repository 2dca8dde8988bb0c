"""NVIDIA GPUs as their driver tells of them through NVML (nvidia-ml-py): facts, state, memory of a process.

No root is needed.
"""

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

# nvml.h
TEMPERATURE_GPU = 0
CLOCK_SM, CLOCK_MEMORY = 1, 2
FIELD_MEMORY_TEMPERATURE = 82
MIG_ENABLED = 1
THROTTLE_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}

Ask = Callable[..., Any]


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed, asked without any framework."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


# --- The GPU that is asked.


class NoGpu(Exception):
    """NVML cannot be asked of the GPU that CUDA uses; the text is the reason, and the command that helps."""


@dataclass(frozen=True)
class Gpu:
    """One GPU and the module (pynvml) that answers for it."""

    nvml: Any
    handle: Any
    name: str

    def ask(self, function: str, *arguments: Any) -> Any:
        """Answer of an NVML query; None where GPU, driver or permission does not give one."""
        try:
            answer = getattr(self.nvml, function)(self.handle, *arguments)
            return answer.decode() if isinstance(answer, bytes) else answer  # older bindings give names so
        except Exception:  # NVMLError, and whatever bindings raise that are older or newer than the driver
            return None

    def limit_watts(self) -> float | None:
        """The power limit in force."""
        return thousandth(self.ask("nvmlDeviceGetEnforcedPowerLimit"))


def thousandth(value: int | None) -> float | None:
    """What NVML gives in mW or mJ, in W or J."""
    return None if value is None else value / 1000


def load() -> Any:
    """The NVML bindings.

    Raises:
        NoGpu: they are not installed.
    """
    try:
        import pynvml  # noqa: PLC0415  (optional)
    except Exception:  # ImportError, and whatever a broken installation raises
        raise NoGpu("the NVML bindings are not installed: `pip install nvidia-ml-py`") from None
    return pynvml


def connect(nvml: Any, environ: Mapping[str, str]) -> Gpu:
    """The GPU that CUDA, started in `environ`, calls device 0.

    Raises:
        NoGpu: there is none, NVML does not answer, or NVML cannot tell which one it is.
    """
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        index = _first_visible(nvml, handles, environ)
    except NoGpu:
        raise
    except Exception as error:  # NVMLError, and whatever bindings raise that do not fit the driver
        raise NoGpu(f"NVML does not answer ({error}); `nvidia-smi` shows what is wrong") from None
    gpu = Gpu(nvml, handles[index], f"gpu {index}")
    mig = gpu.ask("nvmlDeviceGetMigMode")
    if mig is not None and mig[0] == MIG_ENABLED:
        raise NoGpu(f"{gpu.name} is divided by MIG, and NVML meters only the whole board")
    return gpu


def _first_visible(nvml: Any, handles: list[Any], environ: Mapping[str, str]) -> int:
    """Index of CUDA's device 0: CUDA_VISIBLE_DEVICES names it by index or by the beginning of its UUID."""
    first = environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith("MIG-"):
        raise NoGpu("CUDA_VISIBLE_DEVICES names a MIG instance, and NVML meters only the whole board")
    if first.startswith("GPU-"):
        chosen = [i for i, handle in enumerate(handles) if nvml.nvmlDeviceGetUUID(handle).startswith(first)]
    else:
        chosen = [int(first)] if first.isdecimal() and int(first) < len(handles) else []
        kinds = {nvml.nvmlDeviceGetName(handle) for handle in handles}
        if chosen and len(kinds) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise NoGpu(
                "CUDA numbers unlike GPUs by speed and NVML by slot, so it is open which one to meter: "
                "`export CUDA_DEVICE_ORDER=PCI_BUS_ID`"
            )
    if len(chosen) != 1:
        raise NoGpu("no GPU is visible to CUDA (see CUDA_VISIBLE_DEVICES)")
    return chosen[0]


def _no_answer(function: str, *arguments: Any) -> None:
    """Stands in for Gpu.ask where there is no GPU."""


# --- What it is, how it is doing, and what this process takes of it.


def facts(nvml: Any = None, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What a run does not change: driver, number of GPUs, and of CUDA's device 0 its memory, limits and modes."""
    try:
        nvml = nvml or load()
        return facts_of(connect(nvml, environ))
    except NoGpu:
        return facts_of(None)


def facts_of(gpu: Gpu | None) -> dict[str, Any]:
    """What `facts` tells of a GPU; all of it None where there is none."""
    ask: Ask = gpu.ask if gpu else _no_answer
    memory, cuda = ask("nvmlDeviceGetMemoryInfo"), _of_system(gpu, "nvmlSystemGetCudaDriverVersion_v2")
    ecc, mig = ask("nvmlDeviceGetEccMode"), ask("nvmlDeviceGetMigMode")
    capability, display = ask("nvmlDeviceGetCudaComputeCapability"), ask("nvmlDeviceGetDisplayActive")
    return {
        "gpu_name": ask("nvmlDeviceGetName"),
        "gpu_count": _of_system(gpu, "nvmlDeviceGetCount"),
        "gpu_driver": _of_system(gpu, "nvmlSystemGetDriverVersion"),
        "gpu_driver_cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpu_memory_bytes": None if memory is None else memory.total,
        "gpu_default_power_limit_watts": thousandth(ask("nvmlDeviceGetPowerManagementDefaultLimit")),
        "gpu_max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", CLOCK_SM),
        "gpu_max_memory_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY),
        "gpu_ecc": None if ecc is None else bool(ecc[0]),
        "gpu_mig": None if mig is None else mig[0] == MIG_ENABLED,
        "gpu_compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "gpu_display_active": None if display is None else bool(display),
        "gpu_pcie_max_generation": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        "gpu_pcie_max_width": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        "gpu_pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        "gpu_pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
    }


def _of_system(gpu: Gpu | None, function: str) -> Any:
    """Answer of a query that is about no GPU in particular; None where there is none."""
    if gpu is None:
        return None
    try:
        return getattr(gpu.nvml, function)()
    except Exception:  # as above
        return None


def state(nvml: Any = None, environ: Mapping[str, str] = os.environ, own_processes: int = 0) -> dict[str, Any]:
    """Temperatures, clocks, throttle reasons, power, load and foreign processes of CUDA's device 0; None where unknown.

    Foreign are processes that are neither this one nor its descendants. In a container NVML may list the pids of the
    host, or none: then it is all but `own_processes`, which the caller has on the GPU.
    """
    try:
        return state_of(connect(nvml or load(), environ), own_processes)
    except NoGpu:
        return state_of(None)


def state_of(gpu: Gpu | None, own_processes: int = 0) -> dict[str, Any]:
    """What `state` tells of a GPU; all of it None where there is none."""
    ask: Ask = gpu.ask if gpu else _no_answer
    utilisation, memory = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMemoryInfo")
    return {
        "gpu_memory_free_bytes": None if memory is None else memory.free,
        "gpu_temperature_celsius": ask("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        "gpu_memory_temperature_celsius": _memory_temperature(ask),
        "gpu_sm_clock_mhz": ask("nvmlDeviceGetClockInfo", CLOCK_SM),
        "gpu_memory_clock_mhz": ask("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
        "gpu_throttle_reasons": _throttle_reasons(ask),
        "gpu_power_watts": thousandth(ask("nvmlDeviceGetPowerUsage")),
        "gpu_power_limit_watts": thousandth(ask("nvmlDeviceGetEnforcedPowerLimit")),
        "gpu_utilisation_percent": None if utilisation is None else utilisation.gpu,
        "gpu_foreign_processes": _foreign_processes(ask, own_processes),
    }


def _memory_temperature(ask: Ask) -> int | None:
    fields = ask("nvmlDeviceGetFieldValues", [FIELD_MEMORY_TEMPERATURE])
    if fields is None or fields[0].nvmlReturn != 0:
        return None
    celsius: int = fields[0].value.uiVal
    return celsius or None  # boards without this sensor answer 0


def _throttle_reasons(ask: Ask) -> list[str] | None:
    mask = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    if mask is None:
        return None
    return [name for bit, name in THROTTLE_REASONS.items() if mask & bit]


def _foreign_processes(ask: Ask, own_processes: int) -> int | None:
    running = ask("nvmlDeviceGetComputeRunningProcesses")
    if running is None:
        return None
    this = psutil.Process()
    own = {this.pid, *(child.pid for child in this.children(recursive=True))}
    foreign = sum(process.pid not in own for process in running)
    return foreign if foreign < len(running) else max(0, foreign - own_processes)


def process_memory_bytes(nvml: Any = None, environ: Mapping[str, str] = os.environ) -> int | None:
    """Memory of CUDA's device 0 that the driver books on this process now; None where it does not tell.

    The figure holds what the framework reserved, the CUDA context and loaded code too. In a container NVML may know
    processes by other numbers: a process that is on the GPU alone is this one all the same.
    """
    try:
        running = connect(nvml or load(), environ).ask("nvmlDeviceGetComputeRunningProcesses") or []
    except NoGpu:
        return None
    mine = [process for process in running if process.pid == os.getpid()] or (running if len(running) == 1 else [])
    used: int | None = mine[0].usedGpuMemory if mine else None
    return used
