"""Energy meters on counters that are replayed: what they add up, and every way in which a figure cannot be true."""

import builtins
import re
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import psutil
import pytest

from shared_spec.machine import nvml as machine_nvml
from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.meter import Meter, NoMeter, Unmetered
from shared_spec.machine.energy.open import open_meter
from shared_spec.machine.sampler import Sampler
from shared_spec.results.measurements import Energy, EnergySource


class World:
    """A clock that only the test moves; `then` is called at every tick, as hardware and threads go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.then: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def run(self, seconds: float, tick: float = 0.01) -> None:
        end = self.now + seconds
        while self.now < end - tick / 2:
            self.now += tick
            for action in self.then:
                action()

    def sampler(self) -> type[Sampler]:
        """A Sampler that this world's time drives, instead of a thread."""
        world = self

        class Driven(Sampler):
            running = False

            def start(self) -> None:
                assert not self.running, "a sampler is started once at a time"
                self.running, self.due = True, world.now + self.interval
                world.then.append(self.tick)

            def stop(self) -> None:
                self.running = False

            def tick(self) -> None:
                if self.running and world.now >= self.due - 1e-9:
                    self.due += self.interval
                    self.take()

        return Driven


@pytest.fixture
def world() -> World:
    return World()


def assert_null(reading: Energy, *words: str) -> None:
    assert reading.joules is None
    for word in words:
        assert word in (reading.reason or "")


def reading_of(meter: Meter, world: World, seconds: float) -> Energy:
    meter.start()
    world.run(seconds)
    return meter.stop()


# --- What all meters share


@pytest.mark.parametrize(("joules", "reason"), [(None, None), (0.0, "no permission")])
def test_a_reading_is_a_figure_or_a_reason(joules: float | None, reason: str | None) -> None:
    with pytest.raises(ValueError, match="reason"):
        Energy(joules=joules, reason=reason, source="none", scope="nothing", samples=0)


@pytest.mark.parametrize(
    "reading",
    [
        Energy(joules=12.5, reason=None, source="rapl-package", scope="processor packages (1)", samples=1),
        Unmetered("no meter").stop(),
    ],
    ids=["measured", "unmetered"],
)
def test_readings_fit_the_result_schema(reading: Energy) -> None:
    assert Energy.model_validate(reading.to_dict()) == reading


def test_the_result_schema_knows_every_source() -> None:
    meters = (nvml.CounterMeter, nvml.IntegratedMeter, apple.AppleMeter, wall.WallMeter, Unmetered)
    assert {meter.source for meter in meters} | {"rapl-package", "rapl-psys"} == set(get_args(EnergySource))


@pytest.mark.parametrize("device", ["cuda", "gpu", "cpu"])
@pytest.mark.parametrize("wall_watts", [None, 42.0])
def test_every_machine_gets_a_meter(device: str, wall_watts: float | None, world: World) -> None:
    """Whatever this machine has or lacks: a figure with its source, or a reason."""
    reading = reading_of(open_meter(device, wall_watts, world.clock), world, 0.1)
    assert reading.scope
    assert (reading.source == "none") <= bool(reading.reason)
    if wall_watts is not None:
        assert (reading.source, reading.joules) == ("wall-meter", pytest.approx(4.2))


@pytest.mark.parametrize(
    ("system", "device", "module"),
    [
        ("darwin", "gpu", "zeus-apple-silicon"),
        ("darwin", "cpu", "zeus-apple-silicon"),
        ("linux", "cuda", "nvidia-ml-py"),
        ("linux", "gpu", "nvidia-ml-py"),
    ],
)
def test_a_missing_library_is_a_reason_with_the_command(
    system: str, device: str, module: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_meters(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("pynvml", "zeus_apple_silicon"):
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_meters)
    monkeypatch.setattr(sys, "platform", system)
    reading = reading_of(open_meter(device, None, world.clock), world, 1)
    assert_null(reading, f"`pip install {module}`")
    assert reading.source == "none"


def test_a_cpu_run_is_not_metered_on_the_gpu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(rapl, "open_meter", partial(rapl.open_meter, root=Path("no such folder")))
    assert_null(open_meter("cpu", None, world.clock).stop(), "energy counters of the processor")


def test_the_sampler_takes_on_a_thread_until_stopped() -> None:
    enough, taken = threading.Event(), []

    def take() -> None:
        taken.append(threading.current_thread())
        if len(taken) >= 3:
            enough.set()

    sampler = Sampler(take, 0.001)
    for _ in range(2):  # it can be started again
        taken.clear()
        enough.clear()
        sampler.start()
        assert enough.wait(timeout=30)
        sampler.stop()
        assert not taken[0].is_alive()
        assert taken[0] is not threading.current_thread()
    sampler.stop()


# --- Wall meter


def test_the_wall_meter_multiplies_and_says_so(world: World) -> None:
    meter = wall.WallMeter(65.0, world.clock)
    world.run(1)
    reading = reading_of(meter, world, 10)
    assert reading.joules == pytest.approx(650)
    assert reading.source == "wall-meter"
    assert "--power-watts" in reading.scope


# --- NVML


class NvmlError(Exception):
    pass


class Board:
    """A GPU that draws `watts`; its counter moves every 100 ms of the world's time, as NVML's does."""

    def __init__(self, world: World, name: str = "NVIDIA H200", uuid: str = "GPU-aaaa") -> None:
        self.name, self.uuid, self.watts, self.mig, self.unsupported = name, uuid, 500.0, [0, 0], set[str]()
        self.count = self.pending = 7_000_000_000.0  # mJ: the driver was loaded long ago
        self.processes: list[int] = []
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

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NvmlError("Driver Not Loaded")

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "575.57.08"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 12090

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
            "nvmlDeviceGetEnforcedPowerLimit": lambda board: 700_000,
            "nvmlDeviceGetTemperature": lambda board, sensor: {machine_nvml.TEMPERATURE_GPU: 61}[sensor],
            "nvmlDeviceGetClockInfo": lambda board, clock: {
                machine_nvml.CLOCK_SM: 1980,
                machine_nvml.CLOCK_MEMORY: 3201,
            }[clock],
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda board: 0x4 | 0x40,
            "nvmlDeviceGetUtilizationRates": lambda board: SimpleNamespace(gpu=97, memory=40),
            "nvmlDeviceGetComputeRunningProcesses": lambda board: [
                SimpleNamespace(pid=p, usedGpuMemory=1000 + p) for p in board.processes
            ],
            "nvmlDeviceGetMemoryInfo": lambda board: SimpleNamespace(total=141 << 30),
            "nvmlDeviceGetPowerManagementDefaultLimit": lambda board: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda board, clock: {
                machine_nvml.CLOCK_SM: 1980,
                machine_nvml.CLOCK_MEMORY: 3201,
            }[clock],
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


@pytest.fixture
def board(world: World) -> Board:
    return Board(world)


def gpu_meter(world: World, *boards: Board, **environ: str) -> Meter:
    return nvml.open_meter(world.clock, Nvml(*boards), environ, world.sampler())


def test_nvml_counter_difference(world: World, board: Board) -> None:
    reading = reading_of(gpu_meter(world, board), world, 10)
    assert reading.joules == pytest.approx(5000, rel=0.01)
    assert (reading.source, reading.samples) == ("nvml-counter", 1)
    assert "gpu 0" in reading.scope


def test_nvml_windows_in_a_row_lose_nothing(world: World, board: Board) -> None:
    """Windows shorter than a step of the counter read 0 or a whole step, and still add up."""
    meter = gpu_meter(world, board)
    parts = [reading_of(meter, world, 0.03).joules for _ in range(200)]
    assert 0.0 in parts
    assert sum(part or 0.0 for part in parts) == pytest.approx(500 * 6.0, rel=0.02)


def test_nvml_counter_that_stands_still_is_null(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    board.watts = 0.0
    assert_null(reading_of(meter, world, 10), "did not move", "gpu 0")


def test_nvml_reading_above_the_board_limit_is_null(world: World, board: Board) -> None:
    board.watts = 900.0
    assert_null(reading_of(gpu_meter(world, board), world, 10), "700 W")


def test_nvml_reading_at_the_board_limit_is_believed(world: World, board: Board) -> None:
    board.watts = 750.0
    assert reading_of(gpu_meter(world, board), world, 60).joules == pytest.approx(45_000, rel=0.01)


def test_nvml_without_a_known_limit_is_believed(world: World, board: Board) -> None:
    board.watts, board.unsupported = 900.0, {LIMIT}
    assert reading_of(gpu_meter(world, board), world, 10).joules == pytest.approx(9000, rel=0.01)


def test_nvml_counter_that_goes_backwards_is_null(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    meter.start()
    board.count = board.pending = 0.0
    world.run(10)
    assert_null(meter.stop(), "backwards")


def test_nvml_gpu_lost_within_a_window_is_null_and_the_next_window_counts(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    meter.start()
    world.run(5)
    board.unsupported = {ENERGY}
    assert_null(meter.stop(), "no longer")
    meter.start()
    board.unsupported = set()
    assert_null(meter.stop(), "no longer")
    assert reading_of(meter, world, 10).joules is not None


def without_counter(board: Board) -> None:
    board.unsupported.add(ENERGY)


def counter_of_a_virtual_gpu(board: Board) -> None:
    board.count, board.pending = 0.0, -1e12


@pytest.mark.parametrize("spoil", [without_counter, counter_of_a_virtual_gpu])
def test_nvml_integrates_where_there_is_no_counter(spoil: Callable[[Board], None], world: World, board: Board) -> None:
    spoil(board)
    meter = gpu_meter(world, board)
    meter.start()
    for watts in (100.0, 300.0):
        board.watts = watts
        world.run(5)
    reading = meter.stop()
    assert reading.joules == pytest.approx(2000, rel=0.01)
    assert reading.source == "nvml-integrated"
    assert reading.samples > 10 * 20


def test_nvml_integration_follows_a_ramp(world: World, board: Board) -> None:
    """100 W to 400 W in 10 s, evenly: 2500 J."""
    board.watts = 100.0
    without_counter(board)
    meter = gpu_meter(world, board)
    world.then.insert(0, lambda: setattr(board, "watts", board.watts + 0.3))
    assert reading_of(meter, world, 10).joules == pytest.approx(2500, rel=1e-3)


def integrating(world: World, board: Board) -> Meter:
    without_counter(board)
    return gpu_meter(world, board)


@pytest.mark.parametrize("spoil", [without_counter, lambda board: None], ids=["power", "counter"])
def test_nvml_start_again_forgets_the_first_window(spoil: Callable[[Board], None], world: World, board: Board) -> None:
    spoil(board)
    meter = gpu_meter(world, board)
    meter.start()
    world.run(5)
    assert reading_of(meter, world, 4).joules == pytest.approx(2000, rel=0.01)


def test_nvml_integration_needs_sixty_samples(world: World, board: Board) -> None:
    meter = integrating(world, board)
    assert_null(reading_of(meter, world, 1), "too few", "60")
    assert reading_of(meter, world, 3).joules == pytest.approx(1500, rel=0.01)


def test_nvml_integration_rejects_a_gap(world: World, board: Board) -> None:
    meter = integrating(world, board)
    meter.start()
    world.run(5)
    world.now += 2.5  # the thread did not get to run
    world.run(5)
    assert_null(meter.stop(), "gap of 2.5")


def test_nvml_integration_rejects_power_above_the_limit(world: World, board: Board) -> None:
    board.watts = 900.0
    assert_null(reading_of(integrating(world, board), world, 10), "900 W", "700 W")


def test_nvml_integration_rejects_no_power(world: World, board: Board) -> None:
    meter = integrating(world, board)
    board.watts = 0.0
    assert_null(reading_of(meter, world, 10), "0 W")


def test_nvml_integration_rejects_an_unanswered_query(world: World, board: Board) -> None:
    """Also at the end, where no gap between samples would show it."""
    meter = integrating(world, board)
    meter.start()
    world.run(5)
    board.unsupported.add(POWER)
    assert_null(meter.stop(), "no longer")
    board.unsupported.remove(POWER)
    assert reading_of(meter, world, 5).joules is not None


def test_nvml_gpu_without_energy_and_power(world: World, board: Board) -> None:
    board.unsupported = {ENERGY, POWER}
    with pytest.raises(NoMeter, match="neither its energy nor its power"):
        gpu_meter(world, board)


def test_nvml_without_driver(world: World, board: Board) -> None:
    module = Nvml(board)
    module.broken = True
    with pytest.raises(NoMeter, match=r"Driver Not Loaded.*`nvidia-smi`"):
        nvml.open_meter(world.clock, module, {})
    assert set(machine_nvml.state(module, {}).values()) == {None}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "gpu 0"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb,GPU-aa"}, "gpu 1"),
    ],
)
def test_nvml_meters_the_gpu_that_cuda_uses(environ: dict[str, str], name: str, world: World) -> None:
    first, second = Board(world), Board(world, uuid="GPU-bbbb-1234")
    first.watts, second.watts = 100.0, 600.0
    reading = reading_of(gpu_meter(world, first, second, **environ), world, 10)
    assert name in reading.scope
    assert reading.joules == pytest.approx(1000 if name == "gpu 0" else 6000, rel=0.02)


@pytest.mark.parametrize("visible", ["", "-1", "2", "GPU-cccc", "GPU-", "NoDevFiles"])
def test_nvml_without_a_visible_gpu(visible: str, world: World, board: Board) -> None:
    with pytest.raises(NoMeter, match="CUDA_VISIBLE_DEVICES"):
        gpu_meter(world, board, Board(world, uuid="GPU-bbbb"), CUDA_VISIBLE_DEVICES=visible)


def test_nvml_does_not_guess_among_unlike_gpus(world: World, board: Board) -> None:
    other = Board(world, "NVIDIA T4", "GPU-bbbb")
    with pytest.raises(NoMeter, match="`export CUDA_DEVICE_ORDER=PCI_BUS_ID`"):
        gpu_meter(world, board, other)
    assert "gpu 0" in gpu_meter(world, board, other, CUDA_DEVICE_ORDER="PCI_BUS_ID").scope
    assert "gpu 1" in gpu_meter(world, board, other, CUDA_VISIBLE_DEVICES="GPU-bbbb").scope


def test_nvml_does_not_take_a_board_for_its_slice(world: World, board: Board) -> None:
    with pytest.raises(NoMeter, match="MIG"):
        gpu_meter(world, board, CUDA_VISIBLE_DEVICES="MIG-1234")
    board.mig = [1, 1]
    with pytest.raises(NoMeter, match="MIG"):
        gpu_meter(world, board)


def test_gpu_state(board: Board) -> None:
    child = SimpleNamespace(pid=4242)
    board.processes = [psutil.Process().pid, child.pid]
    assert machine_nvml.state(Nvml(board), {}) == {
        "gpu_temperature_celsius": 61,
        "gpu_memory_temperature_celsius": 70,
        "gpu_sm_clock_mhz": 1980,
        "gpu_memory_clock_mhz": 3201,
        "gpu_throttle_reasons": ["sw_power_cap", "hw_thermal_slowdown"],
        "gpu_power_watts": 500.0,
        "gpu_power_limit_watts": 700.0,
        "gpu_utilisation_percent": 97,
        "gpu_foreign_processes": 1,
    }


def test_gpu_state_counts_no_child_as_foreign(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [SimpleNamespace(pid=4242)])
    board.processes = [4242]
    assert machine_nvml.state(Nvml(board), {})["gpu_foreign_processes"] == 0


@pytest.mark.parametrize(("processes", "own", "foreign"), [([4242], 0, 1), ([4242], 1, 0), ([4242, 4343], 1, 1)])
def test_gpu_processes_of_another_namespace_are_foreign_but_for_ones_own(
    board: Board, processes: list[int], own: int, foreign: int
) -> None:
    """As in a container: NVML tells the host's numbers, in which no process can find itself."""
    board.processes = processes
    assert machine_nvml.state(Nvml(board), {}, own)["gpu_foreign_processes"] == foreign


def test_gpu_facts(board: Board) -> None:
    assert machine_nvml.facts(Nvml(board, Board(board.world, uuid="GPU-bbbb")), {}) == {
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
        "gpu_pcie_generation": 5,
        "gpu_pcie_width": 16,
    }


def test_gpu_facts_are_none_without_driver(board: Board) -> None:
    module = Nvml(board)
    module.broken = True
    assert set(machine_nvml.facts(module, {}).values()) == {None}


def test_gpu_memory_of_this_process(board: Board) -> None:
    """Found by its number; alone on the GPU, under whatever number; else not told."""
    here = psutil.Process().pid
    for processes, expected in (([4242, here], 1000 + here), ([4242], 5242), ([4242, 4343], None), ([], None)):
        board.processes = processes
        assert machine_nvml.process_memory_bytes(Nvml(board), {}) == expected
    board.unsupported = {"nvmlDeviceGetComputeRunningProcesses"}
    assert machine_nvml.process_memory_bytes(Nvml(board), {}) is None


def test_gpu_state_is_none_where_not_supported(board: Board) -> None:
    whole = machine_nvml.state(Nvml(board), {})
    board.unsupported = {
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        POWER,
        LIMIT,
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses",
    }
    assert machine_nvml.state(Nvml(board), {}) == dict.fromkeys(whole)


def test_nvml_names_and_numbers_are_those_of_the_bindings() -> None:
    pynvml = pytest.importorskip("pynvml", reason="NOT TESTED AGAINST THE BINDINGS: pip install nvidia-ml-py")
    source = Path(nvml.__file__).read_text()
    functions = set(re.findall(r"nvml(?:Init|Device|System)\w*", source))
    assert len(functions) >= 12
    assert {name for name in functions if not hasattr(pynvml, name)} == set()
    assert machine_nvml.TEMPERATURE_GPU == pynvml.NVML_TEMPERATURE_GPU
    assert machine_nvml.FIELD_MEMORY_TEMPERATURE == pynvml.NVML_FI_DEV_MEMORY_TEMP
    assert machine_nvml.MIG_ENABLED == pynvml.NVML_DEVICE_MIG_ENABLE
    assert (machine_nvml.CLOCK_SM, machine_nvml.CLOCK_MEMORY) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    for bit, name in machine_nvml.THROTTLE_REASONS.items():
        assert getattr(pynvml, "nvmlClocksThrottleReason" + name.title().replace("_", "")) == bit


# --- RAPL

WRAP = 262_143_328_850  # max_energy_range_uj of most Intel processors; older ones: 65,532,610,987


class Powercap:
    """A powercap tree in files; each counter gains its watts at every tick of the world."""

    def __init__(self, root: Path, world: World) -> None:
        self.root = root
        self.counters: dict[str, list[float]] = {}
        world.then.insert(0, self._tick)
        self.tick = 0.01
        (root / "intel-rapl").mkdir()

    def add(self, zone: str, name: str, watts: float, count: int = 1_000_000, wrap: int = WRAP) -> None:
        folder = self.root / zone
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
        self.counters[zone] = [count, watts, wrap]
        self._write(zone)

    def _write(self, zone: str) -> None:
        (self.root / zone / "energy_uj").write_text(f"{int(self.counters[zone][0])}\n")

    def _tick(self) -> None:
        for zone, counter in self.counters.items():
            counter[0] = (counter[0] + counter[1] * self.tick * 1e6) % counter[2]
            self._write(zone)


@pytest.fixture
def tree(tmp_path: Path, world: World) -> Powercap:
    return Powercap(tmp_path, world)


def cpu_meter(tree: Powercap, world: World) -> rapl.RaplMeter:
    return rapl.open_meter(world.clock, tree.root, world.sampler())


def rapl_reading(tree: Powercap, world: World, seconds: float = 1.0, tick: float = 0.1) -> Energy:
    meter, tree.tick = cpu_meter(tree, world), tick
    meter.start()
    world.run(seconds, tick)
    return meter.stop()


def test_rapl_sums_packages_and_nothing_else(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    tree.add("intel-rapl:0:0", "core", 70.0)
    tree.add("intel-rapl:0:1", "uncore", 5.0)
    tree.add("intel-rapl:0:2", "dram", 11.0)
    tree.add("intel-rapl:1", "package-1", 50.0)
    tree.add("intel-rapl:2", "psys", 230.0)
    tree.add("intel-rapl-mmio:0", "package-0", 100.0)
    reading = rapl_reading(tree, world)
    assert reading.joules == pytest.approx(150)
    assert (reading.source, reading.samples) == ("rapl-package", 1)
    assert "(2)" in reading.scope


def test_rapl_takes_the_platform_where_there_is_no_package(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "psys", 30.0)
    reading = rapl_reading(tree, world)
    assert (reading.joules, reading.source) == (pytest.approx(30), "rapl-psys")


def test_rapl_sums_the_dies_of_one_socket(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0-die-0", 60.0)
    tree.add("intel-rapl:1", "package-0-die-1", 50.0)
    assert rapl_reading(tree, world).joules == pytest.approx(110)


def test_rapl_counter_that_wraps_once(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0, count=WRAP - 40_000_000)
    reading = rapl_reading(tree, world)
    assert int((tree.root / "intel-rapl:0" / "energy_uj").read_text()) < 100_000_000
    assert reading.joules == pytest.approx(100)


@pytest.mark.parametrize("wrap", [WRAP, 65_532_610_987])
def test_rapl_counter_that_wraps_often(wrap: int, tree: Powercap, world: World) -> None:
    """An hour at 350 W: four wraps, or nineteen."""
    tree.add("intel-rapl:0", "package-0", 350.0, wrap=wrap)
    assert rapl_reading(tree, world, 3600, tick=10.0).joules == pytest.approx(3600 * 350, rel=1e-6)


def test_rapl_windows_in_a_row_start_from_nothing(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    meter, tree.tick = cpu_meter(tree, world), 0.1
    readings = []
    for seconds in (1, 2):
        meter.start()
        world.run(seconds, 0.1)
        readings.append(meter.stop().joules)
    assert readings == [pytest.approx(100), pytest.approx(200)]


def test_rapl_start_again_forgets_the_first_window(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    meter, tree.tick = cpu_meter(tree, world), 0.1
    meter.start()
    world.run(1, 0.1)
    meter.start()
    world.run(2, 0.1)
    assert meter.stop().joules == pytest.approx(200)


def test_rapl_unread_for_longer_than_a_wrap_is_null(tree: Powercap, world: World) -> None:
    """As when the machine slept: nobody can tell one wrap from two."""
    tree.add("intel-rapl:0", "package-0", 100.0)
    meter = cpu_meter(tree, world)
    meter.start()
    world.now += 400
    world.run(1)
    assert_null(meter.stop(), "wrapped more than once")
    tree.tick = 0.1
    meter.start()
    world.run(1, 0.1)
    assert meter.stop().joules == pytest.approx(100)


def test_rapl_counter_that_stands_still_is_null_beside_one_that_moves(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    tree.add("intel-rapl:1", "package-1", 0.0)
    assert_null(rapl_reading(tree, world), "package-1", "did not move")


def test_rapl_counter_that_was_reset_is_null_not_a_wrap(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0, count=5_000_000_000)
    meter, tree.tick = cpu_meter(tree, world), 0.1
    meter.start()
    world.run(1, 0.1)
    tree.counters["intel-rapl:0"][0] = 0
    world.run(1, 0.1)
    assert_null(meter.stop(), "package-0", "1000 W")


def test_rapl_nonsense_power_is_null(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 5000.0)
    assert_null(rapl_reading(tree, world, 10), "1000 W")


def test_rapl_missing(tmp_path: Path, world: World) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NoMeter, match="`sudo modprobe intel_rapl_msr`"):
            rapl.open_meter(world.clock, root)


def test_rapl_hidden_by_a_container(tmp_path: Path, world: World) -> None:
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "masked" / "intel-rapl:0")
    with pytest.raises(NoMeter, match="container"):
        rapl.open_meter(world.clock, tmp_path)


def test_rapl_package_without_a_counter_leaves_no_partial_sum(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    tree.add("intel-rapl:1", "package-1", 100.0)
    (tree.root / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(NoMeter, match="package-1"):
        cpu_meter(tree, world)


@pytest.fixture
def only_root_may_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mode 0400 as the kernel sets it since 5.10; tests may run as root, whom no mode keeps out."""
    read_text = Path.read_text

    def guarded(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", guarded)
        yield


@pytest.mark.usefixtures("only_root_may_read")
def test_rapl_without_permission_names_the_command(
    tree: Powercap, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(rapl, "open_meter", partial(rapl.open_meter, root=tree.root))
    reading = reading_of(open_meter("cpu", None, world.clock), world, 1)
    assert_null(reading, "`sudo chmod -R a+r /sys/class/powercap/intel-rapl`")
    assert reading.source == "none"


def test_rapl_permission_lost_within_a_window_is_null(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    meter = cpu_meter(tree, world)
    meter.start()
    (tree.root / "intel-rapl:0" / "energy_uj").unlink()
    tree.counters.clear()
    world.run(1)
    assert_null(meter.stop(), "no longer", "FileNotFoundError")


# --- Apple Silicon

ALL_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "ane_mj", "dram_mj")


class Chip:
    """The zeus_apple_silicon module and its monitor in one: millijoules in the window, as the test sets them."""

    def __init__(self, **millijoules: int | None) -> None:
        self.millijoules: dict[str, int | None] = dict.fromkeys(ALL_PARTS) | millijoules
        self.window: str | None = None
        self.broken = False

    def AppleEnergyMonitor(self) -> "Chip":  # noqa: N802
        if self.broken:
            raise RuntimeError("Failed to create IOReport subscription.")
        return self

    def get_cumulative_energy(self) -> SimpleNamespace:
        return SimpleNamespace(**self.millijoules)

    def begin_window(self, key: str) -> None:
        if self.window is not None:
            raise RuntimeError("Measurement with specified key already exists.")
        self.window = key

    def end_window(self, key: str) -> SimpleNamespace:
        if self.window != key:
            raise RuntimeError("No measurement with provided key had been started.")
        self.window = None
        return SimpleNamespace(**self.millijoules)


@pytest.fixture
def chip() -> Chip:
    return Chip(cpu_total_mj=40_000, gpu_mj=300_000, gpu_sram_mj=7_000, ane_mj=0, dram_mj=20_000)


def test_apple_sums_the_parts_of_the_chip(chip: Chip, world: World) -> None:
    reading = reading_of(apple.open_meter(world.clock, chip), world, 10)
    assert reading.joules == pytest.approx(40 + 300 + 0 + 20)
    assert (reading.source, reading.samples) == ("apple-soc", 1)
    assert "(CPU, GPU, neural engine, memory), modelled" in reading.scope


def test_apple_scope_leaves_out_what_the_chip_does_not_tell(world: World) -> None:
    """As on some M1: no memory figure."""
    reading = reading_of(apple.open_meter(world.clock, Chip(cpu_total_mj=1000, gpu_mj=2000, ane_mj=3)), world, 10)
    assert reading.joules == pytest.approx(3.003)
    assert "(CPU, GPU, neural engine)" in reading.scope


def test_apple_cpu_that_stands_still_is_null_whatever_the_gpu_says(chip: Chip, world: World) -> None:
    """As on macOS 27: the GPU's driver counts on, the power manager's counters stand."""
    meter = apple.open_meter(world.clock, chip)
    chip.millijoules |= {"cpu_total_mj": 0, "dram_mj": 0, "ane_mj": 0}
    assert_null(reading_of(meter, world, 10), "CPU", "did not move", "powermetrics")


def test_apple_window_shorter_than_a_step_may_be_zero(chip: Chip, world: World) -> None:
    meter = apple.open_meter(world.clock, chip)
    chip.millijoules = dict.fromkeys(ALL_PARTS, 0)
    assert reading_of(meter, world, 1).joules == 0.0


def test_apple_idle_gpu_may_be_off(chip: Chip, world: World) -> None:
    meter = apple.open_meter(world.clock, chip)
    chip.millijoules |= {"gpu_mj": 0}
    assert reading_of(meter, world, 10).joules == pytest.approx(60)


def test_apple_nonsense_power_is_null(chip: Chip, world: World) -> None:
    chip.millijoules["gpu_mj"] = 300_000_000
    assert_null(reading_of(apple.open_meter(world.clock, chip), world, 10), "500 W")


@pytest.mark.parametrize("value", [None, -5])
def test_apple_part_that_vanishes_or_runs_backwards_is_null(value: int | None, chip: Chip, world: World) -> None:
    meter = apple.open_meter(world.clock, chip)
    chip.millijoules["dram_mj"] = value
    assert_null(reading_of(meter, world, 10), "missing or ran backwards")


def test_apple_start_again_forgets_the_first_window(chip: Chip, world: World) -> None:
    meter = apple.open_meter(world.clock, chip)
    meter.start()
    assert reading_of(meter, world, 10).joules == pytest.approx(360)
    assert reading_of(meter, world, 10).joules == pytest.approx(360)


def test_apple_chip_without_a_gpu_figure_is_not_half_metered(world: World) -> None:
    with pytest.raises(NoMeter, match="GPU"):
        apple.open_meter(world.clock, Chip(cpu_total_mj=1000))


def test_apple_without_access(chip: Chip, world: World) -> None:
    chip.broken = True
    with pytest.raises(NoMeter, match="IOReport subscription"):
        apple.open_meter(world.clock, chip)
