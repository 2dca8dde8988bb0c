"""A clock that only work moves, and a meter by it."""

from collections.abc import Callable

from shared_spec.results.quantities import Energy, EnergySource, IdleEnergy


class FakeDevice:
    """A clock and the device that moves it: dispatch costs the host a little, the drain costs what was queued."""

    def __init__(self, step_times: dict[str, float], dispatch: float = 0.001) -> None:
        self.now, self.queued = 0.0, 0.0
        self.step_times, self.dispatch = step_times, dispatch
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def on_work(self, kind: str) -> None:
        self.calls.append(kind)
        if kind in ("synchronize", "to_numpy"):
            self.now += self.queued
            self.queued = 0.0
        elif kind != "reset_peak_memory":
            self.now += self.dispatch
            self.queued += self.step_times[kind.split(maxsplit=1)[0]]


class Meter:
    """Counts 10 W by a given clock."""

    source: EnergySource = "nvml-counter"
    scope = "gpu 0"

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock

    def start(self) -> None:
        self.started = self.clock()

    def stop(self) -> Energy:
        return Energy(
            joules=10 * (self.clock() - self.started), reason=None, source=self.source, scope=self.scope, samples=1
        )


IDLE = IdleEnergy(joules=30.0, reason=None, source="wall-meter", scope="fake", samples=1, seconds=3.0)
