"""A wall meter that the user reads: --power-watts, taken as constant over every window."""

from shared_spec.machine.energy.meter import Clock, Reading


class WallMeter:
    """Joules = watts x seconds, labelled as what they are."""

    source = "wall-meter"
    scope = "whole machine, at the constant power given with --power-watts"

    def __init__(self, watts: float, clock: Clock) -> None:
        self._watts, self._clock = watts, clock
        self._started = clock()

    def start(self) -> None:
        self._started = self._clock()

    def stop(self) -> Reading:
        return Reading(self._watts * (self._clock() - self._started), None, self.source, self.scope, 1)
