"""Joules: which meter they are from, how sure they are, what compares with them, and whether they can be true."""

import re
from collections.abc import Iterator

from aggregate.analysis.metrics import Figure, absent
from aggregate.analysis.plausibility import Problems, world_size
from shared_spec.results.format import Result
from shared_spec.results.measurements import Training
from shared_spec.results.quantities import Energy, IdleEnergy

MIN_WATTS, MAX_WATTS = 1.0, 5e3
"""What a device that trains takes at least, and at most a machine with one: joules in the wrong unit are found out."""
LEAST_SECONDS, LEAST_STEPS = 60.0, 25
"""Length of a window whose energy is compared, in seconds and in steps of its meter."""
WHOLE = "device, processor and memory"
"""What a Mac's meter covers, and a board's or a processor's with what is metered beside it."""


def meter(energy: Energy) -> str:
    """Which meter a figure is from and what it covers: figures compare only where this is the same."""
    return f"{energy.source}: {energy.scope}"


def basis(energy: Energy) -> str:
    """The same without what numbers the parts: one GPU is like another, and two packages are like one."""
    return re.sub(r"\bgpu \d+", "gpu", re.sub(r" \(\d+\)", "", meter(energy)))


def too_short(energy: Energy, seconds: float) -> str:
    """Why the energy of a window is compared with nothing; empty where it is long enough."""
    if seconds < LEAST_SECONDS:
        return f"not compared: its window is shorter than {LEAST_SECONDS:g} s"
    if energy.step_seconds is not None and seconds < LEAST_STEPS * energy.step_seconds:
        return f"not compared: its window is shorter than {LEAST_STEPS} steps of {energy.step_seconds:g} s of its meter"
    return ""


def uncertainty(energy: Energy, seconds: float) -> tuple[str, ...]:
    """How far a window may be off because its meter moves in steps, as a note; none where that is not known."""
    if energy.step_seconds is None or energy.joules is None:
        return ()
    return (
        f"\u00b1 {100 * energy.step_seconds / seconds:.2g} %: the meter moves in steps of {energy.step_seconds:g} s",
    )


def figure(metric: str, value: float | None, energy: Energy, seconds: float | None = None) -> Figure:
    """A figure that follows from joules, or why there are none.

    Args:
        metric: its key.
        value: in the metric's unit.
        energy: of the window.
        seconds: its length; None where it is long enough for anything.
    """
    if value is None:
        return absent(metric, energy.reason or "the meter gave no figure")
    notes, short = [meter(energy)], ""
    if seconds is not None:
        notes += uncertainty(energy, seconds)
        short = too_short(energy, seconds)
    notes += [short] * bool(short)
    return Figure(metric, value, energy.samples, notes=tuple(notes), basis=basis(energy), uncompared=short)


def of_window(measured: Training) -> Iterator[Figure]:
    """Power and energy of the training's window: as metered, above idle, and with what was metered beside it."""
    energy, seconds = measured.energy, measured.seconds
    yield figure("power", measured.watts, energy, seconds)
    yield figure("energy_per_image", measured.joules_per_image, energy, seconds)
    yield _above_idle(measured)
    yield figure("images_per_joule", _inverse(measured.joules_per_image), energy, seconds)
    total, covers, parts = whole(energy)
    for metric, per in (("whole_power", seconds), ("whole_energy_per_image", measured.images)):
        if total is None:
            yield absent(metric, covers)
            continue
        short = too_short(energy, seconds)
        notes = (covers, *parts, *uncertainty(energy, seconds), *[short] * bool(short))
        yield Figure(metric, total / per, energy.samples, notes=notes, basis=covers, uncompared=short)
    yield _idle("idle_power", measured.idle)
    if measured.idle_before is None:
        yield absent("idle_power_before", energy.reason or "not measured before format 2.0")
    else:
        yield _idle("idle_power_before", measured.idle_before)


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _above_idle(measured: Training) -> Figure:
    metric, energy, joules = "energy_above_idle", measured.energy, measured.joules_above_idle
    if joules is None:
        before = measured.idle_before
        why = energy.reason or (before.reason if before else None) or "idle power was not measured before the framework"
        return absent(metric, why)
    return figure(metric, joules / measured.images, energy, measured.seconds)


def _idle(metric: str, idle: IdleEnergy) -> Figure:
    if (watts := idle.idle_watts) is None:
        return absent(metric, idle.reason or "the meter gave no figure")
    notes = (meter(idle), *uncertainty(idle, idle.seconds))
    return Figure(metric, watts, idle.samples, notes=notes, basis=basis(idle))


def whole(energy: Energy) -> tuple[float | None, str, tuple[str, ...]]:
    """What comes nearest to the energy of a whole machine: a meter's joules and those of all that is metered beside it.

    Returns:
        The joules, what they cover, and each part in words; or None and the reason why there are none.
    """
    if energy.joules is None:
        return None, energy.reason or "the meter gave no figure", ()
    if energy.source in ("wall-meter", "rapl-psys"):
        return energy.joules, basis(energy), ()
    if energy.source == "apple-soc":
        return energy.joules, WHOLE if "memory" in energy.scope else WITHOUT_MEMORY, (meter(energy),)
    if energy.beside is None:
        return None, "nothing was metered beside it before format 2.0", ()
    known = {part.what: part.joules for part in energy.beside if part.joules is not None}
    lacking = {part.what: part.reason for part in energy.beside if part.joules is None}
    if host := next((reason for what, reason in lacking.items() if what != "memory"), None):
        return None, f"without the processor: {host}", ()
    total = energy.joules + sum(known.values())
    parts = " + ".join(f"{what} {100 * joules / total:.0f} %" for what, joules in known.items())
    said = f"of it {parts}" if parts else f"nothing beside {energy.scope}"
    return total, WITHOUT_MEMORY if lacking else WHOLE, (said, *filter(None, lacking.values()))


WITHOUT_MEMORY = "device and processor, memory not included"


def power_reason(result: Result) -> str:
    """Why the power of a training is not known; empty where it is, or where no training was timed."""
    energies = [measured.energy for measured in result.measured(Training)]
    if any(energy.joules is not None for energy in energies):
        return ""
    return next((energy.reason for energy in energies if energy.reason), "")


def contradictions(energy: Energy, seconds: float, here: str, result: Result, min_watts: float = MIN_WATTS) -> Problems:
    """More watts than such a machine takes, or fewer."""
    most = MAX_WATTS * world_size(result)
    watts = energy.watts(seconds)
    if watts is not None and not min_watts <= watts <= most:
        yield f"{here}/joules", f"is {energy.joules:g} in {seconds:g} s: {watts:.3g} W, which no such machine takes"
    for i, part in enumerate(energy.beside or ()):
        if part.joules is not None and part.joules > most * seconds:
            yield f"{here}/beside/{i}/joules", f"is {part.joules:g} in {seconds:g} s, which no such machine takes"
