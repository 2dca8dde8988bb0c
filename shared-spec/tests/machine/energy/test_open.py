"""Every machine gets a meter: a figure with its source, or the reason why there is none."""

import builtins
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_meters import World, assert_null, reading_of
from fake_nvml import Board, Nvml

from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.meter import Dated, Unmetered
from shared_spec.machine.energy.open import LOG_PENDING, open_idle_meter, open_meter
from shared_spec.machine.energy.wall import WallPower
from shared_spec.results.quantities import Energy, EnergyPart, EnergySource


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
@pytest.mark.parametrize("power", [None, WallPower(load=42.0)])
def test_every_machine_gets_a_meter(device: str, power: WallPower | None, world: World) -> None:
    """Whatever this machine has or lacks: a figure with its source, or a reason."""
    reading = reading_of(open_meter(device, power, world.clock), world, 0.1)
    assert reading.scope
    assert (reading.source == "none") <= bool(reading.reason)
    if power is not None:
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


def test_the_wall_meter_multiplies_and_says_so(world: World) -> None:
    meter = wall.WallMeter(65.0, world.clock)
    world.run(1)
    reading = reading_of(meter, world, 10)
    assert reading.joules == pytest.approx(650)
    assert reading.source == "wall-meter"
    assert "--power-watts" in reading.scope


def test_idle_power_is_its_own_figure(world: World) -> None:
    meter = open_meter("cpu", WallPower(load=38.0), world.clock)
    idle = open_idle_meter(meter, WallPower(load=38.0, idle=6.5), world.clock)
    reading = reading_of(idle, world, 10)
    assert (reading.joules, reading.source) == (pytest.approx(65), "wall-meter")
    assert "idle power" in reading.scope
    assert_null(reading_of(open_idle_meter(meter, WallPower(load=38.0), world.clock), world, 1), "idle=6.5,load=38")
    assert open_idle_meter(meter, None, world.clock) is meter


def test_a_log_is_read_later(world: World) -> None:
    power = WallPower(log=Path("plug.csv"))
    meter = open_meter("cpu", power, world.clock)
    assert reading_of(meter, world, 1).reason == LOG_PENDING
    assert open_idle_meter(meter, power, world.clock) is meter


def test_a_dated_meter_tells_when_its_window_was(world: World) -> None:
    meter = Dated(wall.WallMeter(10.0, world.clock), lambda: 1e9 + world.now)
    reading = reading_of(meter, world, 2)
    assert reading.joules == pytest.approx(20)
    assert reading.windows is not None
    assert reading.windows[0] == pytest.approx((1e9 + 100, 1e9 + 102))
    Energy.model_validate(reading.to_dict())


def of_counter(joules: float | None, **changed: Any) -> Energy:
    reason = "no more" if joules is None else None
    return Energy(joules=joules, reason=reason, source="nvml-counter", scope="gpu 0", samples=1, **changed)


@pytest.mark.parametrize(("seconds", "uncertain"), [(10.0, 50.0), (60.0, 50.0), (1.0, 50.0)])
def test_a_window_may_have_gained_or_lost_a_step_of_its_meter(seconds: float, uncertain: float) -> None:
    reading = of_counter(500.0 * seconds, step_seconds=0.1)
    assert reading.uncertainty(seconds) == pytest.approx(uncertain)
    assert of_counter(500.0).uncertainty(1.0) is None  # a power that was given has no step
    assert of_counter(None, step_seconds=0.1).uncertainty(1.0) is None


@pytest.mark.parametrize("phase", range(10))
def test_no_window_is_off_by_more_than_its_uncertainty(phase: int, world: World, board: Board) -> None:
    meter = nvml.open_meter(world.clock, Nvml(board), {}, world.sampler())
    world.run(0.01 * phase)
    reading = reading_of(meter, world, 1.03)
    assert abs((reading.joules or 0.0) - 515.0) <= (reading.uncertainty(1.03) or 0.0) * 1.05


def test_windows_in_a_row_add_up_with_what_is_beside_them() -> None:
    def window(joules: float | None, beside: float | None, start: float) -> Energy:
        part = EnergyPart(what="memory", joules=beside, reason=None if beside is not None else "lost")
        return of_counter(joules, beside=(part,), windows=((start, start + 1),))

    both = window(5.0, 1.0, 0).plus(window(6.0, 2.0, 10))
    assert (both.joules, both.windows) == (11.0, ((0, 1), (10, 11)))
    assert both.beside is not None
    assert both.beside[0].joules == 3.0
    lost = window(5.0, 1.0, 0).plus(window(6.0, None, 10))
    assert lost.joules == 11.0
    assert lost.beside is not None
    assert (lost.beside[0].joules, lost.beside[0].reason) == (None, "lost")
    assert window(5.0, 1.0, 0).plus(window(None, 1.0, 10)).reason == "no more"
    assert Energy.model_validate(both.to_dict()) == both
