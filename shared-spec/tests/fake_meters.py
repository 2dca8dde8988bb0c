"""Time that only a test moves, for meters on counters that are replayed."""

from collections.abc import Callable

from shared_spec.machine.energy.meter import Meter
from shared_spec.machine.sampler import Sampler
from shared_spec.results.quantities import Energy


class World:
    """A clock that only the test moves; `then` is called at every tick, as hardware and threads go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.then: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def run(self, seconds: float, tick: float = 0.01) -> None:
        end = self.now + seconds
        while self.now < end - tick / 2:
            self.now += tick
            for action in self.then:
                action()

    def sampler(self) -> type[Sampler]:
        """A Sampler that this world's time drives, instead of a thread."""
        world = self

        class Driven(Sampler):
            running = False

            def start(self) -> None:
                assert not self.running, "a sampler is started once at a time"
                self.running, self.due = True, world.now + self.interval
                world.then.append(self.tick)

            def stop(self) -> None:
                self.running = False

            def tick(self) -> None:
                if self.running and world.now >= self.due - 1e-9:
                    self.due += self.interval
                    self.take()

        return Driven


def assert_null(reading: Energy, *words: str) -> None:
    assert reading.joules is None
    for word in words:
        assert word in (reading.reason or "")


def reading_of(meter: Meter, world: World, seconds: float) -> Energy:
    meter.start()
    world.run(seconds)
    return meter.stop()
