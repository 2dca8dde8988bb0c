"""A meter around a meter: whatever the inner one raises, and however long it is silent, a reading is null and says so."""

from collections.abc import Callable

from shared_spec.machine.energy.meter import Meter, NoMeter, Unmetered
from shared_spec.machine.probe import SLOW_SECONDS, Asker, Unread
from shared_spec.results.quantities import Energy


class GuardedMeter:
    """Opens a meter and reads it on a thread of its own; once it has failed it is not asked again.

    Args:
        opened: opens the meter.
    """

    def __init__(self, opened: Callable[[], Meter], asker: Asker | None = None) -> None:
        self._asker = asker or Asker()
        self._failure: str | None = None
        self._meter: Meter = self._opened(opened)
        self.source, self.scope = self._meter.source, self._meter.scope

    def _opened(self, opened: Callable[[], Meter]) -> Meter:
        def without_meter() -> Meter:
            try:
                return opened()
            except NoMeter as error:
                return Unmetered(str(error))

        try:
            return self._asker.ask(without_meter, SLOW_SECONDS)
        except Unread as reason:
            return Unmetered(f"the energy meter cannot be opened: {reason}")

    def start(self) -> None:
        """Begin a window."""
        if self._failure is None:
            self._ask(self._meter.start)

    def stop(self) -> Energy:
        """The energy of the window."""
        reading = self._ask(self._meter.stop) if self._failure is None else None
        if reading is not None:
            return reading
        return Energy(joules=None, reason=self._failure, source=self.source, scope=self.scope, samples=0)

    def _ask(self, question: Callable[[], Energy | None]) -> Energy | None:
        try:
            return self._asker.ask(question)
        except Unread as reason:
            self._failure = f"the energy meter fails: {reason}"
            return None
