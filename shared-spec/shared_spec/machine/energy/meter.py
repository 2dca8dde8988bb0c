"""Energy meters: one protocol, one file a meter. What cannot be measured is null with its reason, never a guess.

The clock is the harness's and is handed in. A meter reads it only to tell a true figure from a false one (a counter
that stood still, a power that the hardware cannot take) and to integrate where there is no counter. A window too
short for that is given as counted, which may be 0: a counter moves in steps. The steps cancel in a sum of windows
that follow each other, so that sum is right however short its parts are.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from shared_spec.results.quantities import Energy, EnergyPart, EnergySource

Clock = Callable[[], float]

LIMIT_MARGIN = 1.1
"""A mean power up to this many times the limit is believed: boards regulate around their limit, not below it."""


class NoMeter(Exception):
    """Nothing to measure with; the text is the reason, and the one command that helps where there is one."""


class Meter(Protocol):
    """Energy of a part of the machine, one window at a time; a second start() forgets the first.

    start() and stop() raise nothing on account of the hardware, and cost well under a millisecond except where their
    module says otherwise.
    """

    @property
    def source(self) -> EnergySource: ...

    @property
    def scope(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> Energy: ...


class Unmetered:
    """The meter of a machine that has none: every reading is null and says why."""

    source: EnergySource = "none"
    scope = "nothing"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> Energy:
        return Energy(joules=None, reason=self.reason, source=self.source, scope=self.scope, samples=0)


class Beside:
    """A meter with others beside it that run over the same windows, each of another part of the machine.

    Args:
        parts: by the name of the part; what cannot be opened is an `Unmetered` that says why.
    """

    def __init__(self, meter: Meter, parts: Mapping[str, Meter]) -> None:
        self.meter, self.parts = meter, parts
        self.source, self.scope = meter.source, meter.scope

    def start(self) -> None:
        for part in self.parts.values():
            part.start()
        self.meter.start()

    def stop(self) -> Energy:
        energy = self.meter.stop()
        parts = {name: part.stop() for name, part in self.parts.items()}
        beside = (EnergyPart(what=name, joules=part.joules, reason=part.reason) for name, part in parts.items())
        return energy.changed(beside=tuple(beside))


class Dated:
    """A meter whose readings also tell when their window was, by the time of day.

    Args:
        now: tells it, in seconds since 1970.
    """

    def __init__(self, meter: Meter, now: Clock) -> None:
        self.meter, self._now = meter, now
        self._started = now()

    @property
    def source(self) -> EnergySource:
        return self.meter.source

    @property
    def scope(self) -> str:
        return self.meter.scope

    def start(self) -> None:
        self._started = self._now()
        self.meter.start()

    def stop(self) -> Energy:
        energy = self.meter.stop()
        return energy.changed(windows=((self._started, max(self._started, self._now())),))  # a clock may be set back


def implausible(joules: float, seconds: float, update_seconds: float, limit_watts: float | None) -> str | None:
    """Why a counter's difference cannot be the energy of its window; None where it can.

    Args:
        update_seconds: longest time between two steps of the counter: what a window may gain or lose at its ends.
        limit_watts: the most that the metered part takes for long; None where it is not known.
    """
    if joules <= 0 and seconds > update_seconds:
        return f"the energy counter did not move in {seconds:.3g} s"
    if limit_watts is not None and joules > LIMIT_MARGIN * limit_watts * (seconds + update_seconds):
        return f"the energy counter claims {joules:.4g} J in {seconds:.3g} s, more than {limit_watts:.4g} W can give"
    return None
