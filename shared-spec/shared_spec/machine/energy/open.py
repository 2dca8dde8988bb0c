"""Which energy meter a run on a device gets."""

import sys

from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.meter import Clock, Meter, NoMeter, Unmetered


def open_meter(device: str, wall_watts: float | None, clock: Clock) -> Meter:
    """The meter for a run on `device` ("cuda", "gpu" or "cpu").

    A wall meter's figure, where the user gives one, goes before all others. A Mac has one meter for all of its chip;
    elsewhere a GPU run is metered on the GPU and a CPU run on the processor. Where there is no meter, or no
    permission, the readings of the meter returned say so.
    """
    try:
        if wall_watts is not None:
            return wall.WallMeter(wall_watts, clock)
        if sys.platform == "darwin":
            return apple.open_meter(clock)
        return rapl.open_meter(clock) if device == "cpu" else nvml.open_meter(clock)
    except NoMeter as error:
        return Unmetered(str(error))
