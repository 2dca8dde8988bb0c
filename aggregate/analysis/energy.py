"""Joules: which meter they are from, and whether they can be true."""

from aggregate.analysis.metrics import Figure, absent
from aggregate.analysis.plausibility import Problems, world_size
from shared_spec.results.format import Result
from shared_spec.results.measurements import Training
from shared_spec.results.quantities import Energy

MIN_WATTS, MAX_WATTS = 1.0, 5e3
"""What a device that trains takes at least, and at most a machine with one: joules in the wrong unit are found out."""


def meter(energy: Energy) -> str:
    """Which meter a figure is from and what it covers: figures compare only where this is the same."""
    return f"{energy.source}: {energy.scope}"


def figure(metric: str, value: float | None, energy: Energy) -> Figure:
    """A figure that follows from joules, or why there are none."""
    if value is None:
        return absent(metric, energy.reason or "the meter gave no figure")
    return Figure(metric, value, energy.samples, notes=(meter(energy),))


def power_reason(result: Result) -> str:
    """Why the power of a training is not known; empty where it is, or where no training was timed."""
    energies = [measured.energy for measured in result.measured(Training)]
    if any(energy.joules is not None for energy in energies):
        return ""
    return next((energy.reason for energy in energies if energy.reason), "")


def contradictions(energy: Energy, seconds: float, here: str, result: Result, min_watts: float = MIN_WATTS) -> Problems:
    """More watts than such a machine takes, or fewer."""
    watts = energy.watts(seconds)
    if watts is not None and not min_watts <= watts <= MAX_WATTS * world_size(result):
        yield f"{here}/joules", f"is {energy.joules:g} in {seconds:g} s: {watts:.3g} W, which no such machine takes"
