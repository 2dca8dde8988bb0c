"""RAPL on a powercap tree made of files: what is summed, wraps, and every way in which a figure cannot be true."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_meters import World, assert_null, reading_of
from fake_nvml import Board, Nvml

from shared_spec.machine.energy import nvml, rapl
from shared_spec.machine.energy.meter import NoMeter
from shared_spec.machine.energy.open import open_meter
from shared_spec.results.quantities import Energy

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
    assert_null(reading, "sudo tee /etc/udev/rules.d/", "after a restart too")
    assert reading.source == "none"


def test_rapl_permission_lost_within_a_window_is_null(tree: Powercap, world: World) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    meter = cpu_meter(tree, world)
    meter.start()
    (tree.root / "intel-rapl:0" / "energy_uj").unlink()
    tree.counters.clear()
    world.run(1)
    assert_null(meter.stop(), "no longer", "FileNotFoundError")


def test_memory_is_beside_the_packages_of_a_cpu_run(
    tree: Powercap, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    tree.add("intel-rapl:0:2", "dram", 11.0)
    reading = opened(tree, world, monkeypatch, "cpu")
    assert reading.joules == pytest.approx(1000)
    assert [(part.what, part.joules) for part in reading.beside or ()] == [("memory", pytest.approx(110))]


def test_processor_and_memory_are_beside_the_board_of_a_gpu_run(
    tree: Powercap, world: World, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("intel-rapl:0", "package-0", 100.0)
    tree.add("intel-rapl:0:1", "dram", 11.0)
    tree.add("intel-rapl:1", "package-1", 50.0)
    tree.add("intel-rapl:1:1", "dram", 9.0)
    monkeypatch.setattr(nvml, "open_meter", partial(nvml.open_meter, nvml=Nvml(board), environ={}))
    reading = opened(tree, world, monkeypatch, "cuda")
    assert (reading.joules, reading.source) == (pytest.approx(5000, rel=0.01), "nvml-counter")
    parts = {part.what: part.joules for part in reading.beside or ()}
    assert parts == {"processor packages": pytest.approx(1500), "memory": pytest.approx(200)}
    assert reading.step_seconds == nvml.STEP_SECONDS


def test_a_part_without_a_counter_says_so_and_the_rest_stands(
    tree: Powercap, world: World, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("intel-rapl:0", "psys", 30.0)
    monkeypatch.setattr(nvml, "open_meter", partial(nvml.open_meter, nvml=Nvml(board), environ={}))
    reading = opened(tree, world, monkeypatch, "cuda")
    assert reading.joules == pytest.approx(5000, rel=0.01)
    packages, memory = reading.beside or ()
    assert (packages.joules, memory.joules) == (None, None)
    assert "whole platform" in (packages.reason or "")
    assert "dram" in (memory.reason or "")


def opened(tree: Powercap, world: World, monkeypatch: pytest.MonkeyPatch, device: str) -> Energy:
    """What the meter of such a run reads over ten seconds."""
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("open_meter" if device == "cpu" else "open_packages", "open_memory"):
        monkeypatch.setattr(rapl, name, partial(getattr(rapl, name), root=tree.root, sampler=world.sampler()))
    meter = open_meter(device, None, world.clock)
    meter.start()
    world.run(10, tree.tick)
    return meter.stop()
