"""Apple Silicon's meter on an imitation of zeus-apple-silicon."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_meters import World, assert_null, reading_of

from shared_spec.machine.energy import apple
from shared_spec.machine.energy.meter import NoMeter

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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('Invalid energy unit: pJ')", "Invalid energy unit"),
        ("import os; os.abort()", "crashes on this chip or virtual machine \\(SIGABRT\\)"),
        ("import time; time.sleep(60)", "TimeoutExpired"),
    ],
)
def test_apple_library_that_fails_crashes_or_hangs_does_so_in_a_process_of_its_own(
    body: str, words: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zeus_apple_silicon.py").write_text(f"def AppleEnergyMonitor():\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(apple, "PROBE_SECONDS", 2.0 if "sleep" in body else 20.0)
    apple.check_apart.cache_clear()
    with pytest.raises(NoMeter, match=words):
        apple.open_meter(world.clock)


def test_apple_error_of_any_kind_is_a_reason(chip: Chip, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown_unit() -> SimpleNamespace:
        raise ValueError("unknown unit")

    monkeypatch.setattr(chip, "get_cumulative_energy", unknown_unit)
    with pytest.raises(NoMeter, match="unknown unit"):
        apple.open_meter(world.clock, chip)
