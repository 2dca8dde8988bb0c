"""GPUs behind an imitation of pynvml, the bindings of NVML."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from fake_meters import World

from shared_spec.machine import nvml


class NvmlError(Exception):
    pass


class Board:
    """A GPU that draws `watts`; its counter moves every 100 ms of the world's time, as NVML's does."""

    def __init__(self, world: World, name: str = "NVIDIA H200", uuid: str = "GPU-aaaa") -> None:
        self.name, self.uuid, self.watts, self.mig, self.unsupported = name, uuid, 500.0, [0, 0], set[str]()
        self.count = self.pending = 7_000_000_000.0  # mJ: the driver was loaded long ago
        self.processes: list[int] = []
        self.throttle = 0x4 | 0x40
        self.memory, self.free = 141 << 30, 140 << 30
        self.capability, self.display, self.limit_watts = (9, 0), 0, 700
        self.world = world
        world.then.append(self._tick)
        self._ticks = 0

    def _tick(self) -> None:
        self.pending += self.watts * 10  # mJ in 10 ms
        self._ticks += 1
        if self._ticks % 10 == 0:
            self.count = self.pending


class Nvml:
    """The part of the pynvml module that nvml.py uses."""

    NVMLError = NvmlError

    def __init__(self, *boards: Board) -> None:
        self.boards = boards
        self.broken = False
        self.driver, self.cuda = "575.57.08", 12090

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NvmlError("Driver Not Loaded")

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return self.boards[index]

    def __getattr__(self, function: str) -> Callable[..., Any]:
        answers: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetUUID": lambda board: board.uuid,
            "nvmlDeviceGetName": lambda board: board.name,
            "nvmlDeviceGetMigMode": lambda board: board.mig,
            "nvmlDeviceGetTotalEnergyConsumption": lambda board: int(board.count),
            "nvmlDeviceGetPowerUsage": lambda board: int(board.watts * 1000),
            "nvmlDeviceGetEnforcedPowerLimit": lambda board: board.limit_watts * 1000,
            "nvmlDeviceGetTemperature": lambda board, sensor: {nvml.TEMPERATURE_GPU: 61}[sensor],
            "nvmlDeviceGetClockInfo": lambda board, clock: {
                nvml.CLOCK_SM: 1980,
                nvml.CLOCK_MEMORY: 3201,
            }[clock],
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda board: board.throttle,
            "nvmlDeviceGetUtilizationRates": lambda board: SimpleNamespace(gpu=97, memory=40),
            "nvmlDeviceGetComputeRunningProcesses": lambda board: [
                SimpleNamespace(pid=p, usedGpuMemory=1000 + p) for p in board.processes
            ],
            "nvmlDeviceGetMemoryInfo": lambda board: SimpleNamespace(total=board.memory, free=board.free),
            "nvmlDeviceGetPowerManagementDefaultLimit": lambda board: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda board, clock: {
                nvml.CLOCK_SM: 1980,
                nvml.CLOCK_MEMORY: 3201,
            }[clock],
            "nvmlDeviceGetCudaComputeCapability": lambda board: board.capability,
            "nvmlDeviceGetDisplayActive": lambda board: board.display,
            "nvmlDeviceGetMaxPcieLinkGeneration": lambda board: 5,
            "nvmlDeviceGetMaxPcieLinkWidth": lambda board: 16,
            "nvmlDeviceGetEccMode": lambda board: [1, 1],
            "nvmlDeviceGetCurrPcieLinkGeneration": lambda board: 5,
            "nvmlDeviceGetCurrPcieLinkWidth": lambda board: 16,
            "nvmlDeviceGetFieldValues": lambda board, fields: [
                SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=70)) for _ in fields
            ],
        }

        def answer(board: Board, *arguments: Any) -> Any:
            if function in board.unsupported:
                raise NvmlError("Not Supported")
            return answers[function](board, *arguments)

        return answer


ENERGY, POWER, LIMIT = (
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
)
