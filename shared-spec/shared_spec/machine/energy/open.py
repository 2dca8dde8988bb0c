"""Which energy meter a run on a device gets."""

import sys
from collections.abc import Callable

from shared_spec.machine.energy import apple, nvml, rapl, wall
from shared_spec.machine.energy.guarded import GuardedMeter
from shared_spec.machine.energy.meter import Beside, Clock, Meter, NoMeter, Unmetered
from shared_spec.machine.energy.wall import WallPower

LOG_PENDING = "the log of the plug that --power-watts names could not be matched with this window"
IDLE_UNKNOWN = "--power-watts is the power while training; idle=6.5,load=38 also says what it is when idle"


def open_idle_meter(meter: Meter, power: WallPower | None, clock: Clock) -> Meter:
    """The meter for a machine that does nothing; `meter` is that of the run."""
    if power is None or power.log is not None:
        return meter
    return Unmetered(IDLE_UNKNOWN) if power.idle is None else wall.WallMeter(power.idle, clock, idle=True)


PACKAGES, MEMORY = "processor packages", "memory"


def _parts(clock: Clock, *names: str) -> dict[str, Meter]:
    """Meters of the host's parts; one that is not to be had says why."""
    openers = {PACKAGES: rapl.open_packages, MEMORY: rapl.open_memory}
    return {name: _opened_or_not(openers[name], clock) for name in names}


def _opened_or_not(opener: Callable[[Clock], Meter], clock: Clock) -> Meter:
    try:
        return opener(clock)
    except NoMeter as error:
        return Unmetered(str(error))


def open_meter(device: str, power: WallPower | None, clock: Clock) -> Meter:
    """The meter for a run on `device` ("cuda", "gpu" or "cpu").

    A wall meter's figure, where the user gives one, goes before all others; what a plug logs is read when the run has
    ended. A Mac has one meter for all of its chip;
    elsewhere a GPU run is metered on the GPU, with processor and memory beside it, and a CPU run on the processor, with
    memory beside it: with these, what is metered comes nearest to a Mac's. Where there is no meter, or no
    permission, or where it fails or hangs, the readings of the meter returned say so.
    """

    def opened() -> Meter:
        if power is not None:
            return Unmetered(LOG_PENDING) if power.load is None else wall.WallMeter(power.load, clock)
        if sys.platform == "darwin":
            return apple.open_meter(clock)
        if device == "cpu":
            meter = rapl.open_meter(clock)
            return Beside(meter, _parts(clock, MEMORY)) if meter.source == "rapl-package" else meter
        return Beside(nvml.open_meter(clock), _parts(clock, PACKAGES, MEMORY))

    return GuardedMeter(opened)
