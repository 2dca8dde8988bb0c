"""Joules: which meter they are from, and whether they can be true."""

from aggregate.analysis.phase import Head
from aggregate.analysis.plausibility import Problems
from aggregate.analysis.result import Measured

MIN_WATTS, MAX_WATTS = 1.0, 5e3
"""What a device that trains takes at least, and at most a machine with one: joules in the wrong unit are found out."""


def meter(energy: Measured) -> str:
    """Which meter a figure is from and what it covers: figures compare only where this is the same."""
    return f"{energy['source']}: {energy['scope']}"


def unmetered(energy: Measured) -> str:
    """Why there are no joules."""
    return energy["reason"] or "the meter gave no figure"


def contradictions(energy: Measured, seconds: float, here: str, head: Head, min_watts: float = MIN_WATTS) -> Problems:
    """Neither joules nor a reason, or more watts than such a machine takes, or fewer."""
    joules = energy["joules"]
    if (joules is None) == (energy["reason"] is None):
        yield here, "must have either joules or the reason why there are none"
    if joules is not None and not min_watts <= (watts := joules / seconds) <= MAX_WATTS * head.world_size:
        yield f"{here}/joules", f"is {joules:g} in {seconds:g} s: {watts:.3g} W, which no such machine takes"
