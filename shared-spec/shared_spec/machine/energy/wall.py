"""A wall meter that the user reads: --power-watts, taken as constant over every window."""

from shared_spec.machine.energy.meter import Clock
from shared_spec.results.measurements import Energy, EnergySource


class WallMeter:
    """Joules = watts x seconds, labelled as what they are."""

    source: EnergySource = "wall-meter"
    scope = "whole machine, at the constant power given with --power-watts"

    def __init__(self, watts: float, clock: Clock) -> None:
        self._watts, self._clock = watts, clock
        self._started = clock()

    def start(self) -> None:
        self._started = self._clock()

    def stop(self) -> Energy:
        joules = self._watts * (self._clock() - self._started)
        return Energy(joules=joules, reason=None, source=self.source, scope=self.scope, samples=1)
