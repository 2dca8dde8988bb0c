"""Which energy meter a run on a device gets."""

import sys

from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.guarded import GuardedMeter
from shared_spec.machine.energy.meter import Clock, Meter, Unmetered
from shared_spec.machine.energy.wall import WallPower

LOG_PENDING = "the log of the plug that --power-watts names could not be matched with this window"
IDLE_UNKNOWN = "--power-watts is the power while training; idle=6.5,load=38 also says what it is when idle"


def open_idle_meter(meter: Meter, power: WallPower | None, clock: Clock) -> Meter:
    """The meter for a machine that does nothing; `meter` is that of the run."""
    if power is None or power.log is not None:
        return meter
    return Unmetered(IDLE_UNKNOWN) if power.idle is None else wall.WallMeter(power.idle, clock, idle=True)


def open_meter(device: str, power: WallPower | None, clock: Clock) -> Meter:
    """The meter for a run on `device` ("cuda", "gpu" or "cpu").

    A wall meter's figure, where the user gives one, goes before all others; what a plug logs is read when the run has
    ended. A Mac has one meter for all of its chip;
    elsewhere a GPU run is metered on the GPU and a CPU run on the processor. Where there is no meter, or no
    permission, or where it fails or hangs, the readings of the meter returned say so.
    """

    def opened() -> Meter:
        if power is not None:
            return Unmetered(LOG_PENDING) if power.load is None else wall.WallMeter(power.load, clock)
        if sys.platform == "darwin":
            return apple.open_meter(clock)
        return rapl.open_meter(clock) if device == "cpu" else nvml.open_meter(clock)

    return GuardedMeter(opened)
