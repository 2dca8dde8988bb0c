"""Every machine gets a meter: a figure with its source, or the reason why there is none."""

import builtins
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_meters import World, assert_null, reading_of

from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.meter import Unmetered
from shared_spec.machine.energy.open import open_meter
from shared_spec.results.measurements import Energy, EnergySource


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


def test_the_wall_meter_multiplies_and_says_so(world: World) -> None:
    meter = wall.WallMeter(65.0, world.clock)
    world.run(1)
    reading = reading_of(meter, world, 10)
    assert reading.joules == pytest.approx(650)
    assert reading.source == "wall-meter"
    assert "--power-watts" in reading.scope
