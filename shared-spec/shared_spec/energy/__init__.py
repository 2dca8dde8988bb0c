"""Energy meters: one protocol, one file a meter. What cannot be measured is null with its reason, never a guess.

The clock is the harness's and is handed in. A meter reads it only to tell a true figure from a false one (a counter
that stood still, a power that the hardware cannot take) and to integrate where there is no counter. A window too
short for that is given as counted, which may be 0: a counter moves in steps. The steps cancel in a sum of windows
that follow each other, so that sum is right however short its parts are.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

Clock = Callable[[], float]

LIMIT_MARGIN = 1.1
"""A mean power up to this many times the limit is believed: boards regulate around their limit, not below it."""


class NoMeter(Exception):
    """Nothing to measure with; the text is the reason, and the one command that helps where there is one."""


@dataclass(frozen=True)
class Reading:
    """Energy of one window.

    Attributes:
        joules: None where it could not be measured.
        reason: why it could not, in one sentence; None where it could.
        source: which meter (results.schema.json: energy).
        scope: what is in the figure.
        samples: readings behind the figure: 1 for the difference of a counter, 0 where there is no meter.
    """

    joules: float | None
    reason: str | None
    source: str
    scope: str
    samples: int

    def __post_init__(self) -> None:
        if (self.joules is None) == (self.reason is None):
            raise ValueError("a reading has either joules or the reason why not")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Meter(Protocol):
    """Energy of a part of the machine, one window at a time; a second start() forgets the first.

    start() and stop() raise nothing on account of the hardware, and cost well under a millisecond except where their
    module says otherwise.
    """

    source: str
    scope: str

    def start(self) -> None: ...

    def stop(self) -> Reading: ...


class Unmetered:
    """The meter of a machine that has none: every reading is null and says why."""

    source = "none"
    scope = "nothing"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> Reading:
        return Reading(None, self.reason, self.source, self.scope, 0)


class Sampler:
    """Calls `take` every `interval` seconds on a thread of its own, from start() until stop() has returned."""

    def __init__(self, take: Callable[[], None], interval: float) -> None:
        self.take, self.interval = take, interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="energy sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when no call is under way and none will follow; nothing happens if start() was not called."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._ended.wait(self.interval):
            self.take()


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


def open_meter(device: str, wall_watts: float | None, clock: Clock) -> Meter:
    """The meter for a run on `device` ("cuda", "gpu" or "cpu").

    A wall meter's figure, where the user gives one, goes before all others. A Mac has one meter for all of its chip;
    elsewhere a GPU run is metered on the GPU and a CPU run on the processor. Where there is no meter, or no
    permission, the readings of the meter returned say so.
    """
    from shared_spec.energy import apple, nvml, rapl, wall  # they import this module

    try:
        if wall_watts is not None:
            return wall.WallMeter(wall_watts, clock)
        if sys.platform == "darwin":
            return apple.open_meter(clock)
        return rapl.open_meter(clock) if device == "cpu" else nvml.open_meter(clock)
    except NoMeter as error:
        return Unmetered(str(error))
