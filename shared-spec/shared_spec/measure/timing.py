"""Timing of repeated work: blocks of steps, warm-up, windows. The clock is measure/clock.py's, handed in.

Every rate is images over total time of blocks. A block is a number of steps dispatched without waiting, then
one synchronisation before its clock stops: no host wait per step, no work left in flight, and enough blocks in
a window to see spread and drift. Raw times are returned; statistics are the reader's business.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from shared_spec import ranks
from shared_spec.backend import Handle
from shared_spec.measure.clock import Clock
from shared_spec.ranks import ALONE, Group
from shared_spec.workload.spec import MeasuringSpec


class Progress(Protocol):
    """Called with the part done (0 to 1), a few words, and figures by name as they stand now: "loss" and the like."""

    def __call__(self, done: float, text: str, **figures: float) -> None: ...


def silent(done: float, text: str, **figures: float) -> None:
    """A Progress that shows nothing."""


def portion(progress: Progress, start: float, share: float) -> Progress:
    """The Progress of a piece of work that begins when `start` is done and makes up `share` of the whole."""

    def shifted(done: float, text: str, **figures: float) -> None:
        progress(start + share * min(done, 1.0), text, **figures)

    return shifted


@dataclass(frozen=True)
class Block:
    """`steps` steps from the first dispatch to the end of the synchronisation behind the last, in seconds.

    Attributes:
        drain_seconds: the part of it that the synchronisation took.
    """

    steps: int
    seconds: float
    drain_seconds: float = 0.0

    @property
    def step_seconds(self) -> float:
        return self.seconds / self.steps


def as_rows(blocks: Iterable[Block]) -> tuple[tuple[int, float], ...]:
    """Blocks as the [steps, seconds] pairs of the result format."""
    return tuple((block.steps, block.seconds) for block in blocks)


LEAST_BLOCKS = 2
"""Blocks that a window has though its time is over: one says nothing of how they differ."""


@dataclass
class Stepper:
    """A repeatable piece of device work, and how to time it in blocks.

    Where the work is shared by ranks, rank 0's clock decides for all of them, between blocks, how long the next one is
    and whether there is one; they start it together.

    Attributes:
        deadline: of the clock; after it no block is begun that can be done without.
    """

    step: Callable[[], Handle]
    synchronize: Callable[..., None]
    rules: MeasuringSpec
    clock: Clock
    group: Group = ALONE
    deadline: float = math.inf

    def block(self, steps: int) -> Block:
        start = self.clock()
        for _ in range(steps):
            handle = self.step()
        dispatched = self.clock()
        self.synchronize(handle)
        ended = self.clock()
        return Block(steps, ended - start, ended - dispatched)

    def block_size(self, step_seconds: float) -> int:
        """Steps that make a block long enough for the synchronisation at its end not to matter."""
        return max(self.rules.block_steps, math.ceil(self.rules.block_seconds / max(step_seconds, 1e-9)))

    def warm_up(self, max_seconds: float, progress: Progress = silent) -> tuple[list[Block], bool]:
        """Run blocks until the last few agree, or for `max_seconds`; returns them and whether they agreed."""
        blocks = [self.block(self.rules.block_steps)]
        start = self.clock()

        def wanted() -> int:
            spent = self.clock() - start
            progress(spent / max_seconds, "warming up")
            going_on = not is_steady(blocks, self.rules) and spent < max_seconds and self.clock() < self.deadline
            return self.block_size(blocks[-1].step_seconds) if going_on else 0

        while count := ranks.decided(self.group, wanted()):
            blocks.append(self.block(count))
        return blocks, bool(ranks.decided(self.group, is_steady(blocks, self.rules)))

    def window(
        self,
        min_steps: int,
        min_seconds: float,
        step_seconds: float,
        progress: Progress,
        figures: Callable[[float], dict[str, float]] = lambda step_seconds: {},
    ) -> list[Block]:
        """Blocks until both bounds are met; `step_seconds` is what the warm-up saw.

        `figures` makes what is shown of the time of a step; it is called between two blocks, outside their clocks.
        """
        blocks: list[Block] = []
        steps, seconds = 0, 0.0

        def wanted() -> int:
            if len(blocks) >= LEAST_BLOCKS and self.clock() >= self.deadline:
                return 0
            return self.block_size(step_seconds) if steps < min_steps or seconds < min_seconds else 0

        while count := ranks.decided(self.group, wanted()):
            blocks.append(self.block(count))
            steps, seconds = steps + blocks[-1].steps, seconds + blocks[-1].seconds
            done = min(steps / min_steps, seconds / min_seconds)
            progress(done, f"{seconds / steps * 1e3:.4g} ms a step", **figures(seconds / steps))
        return blocks


def is_steady(blocks: list[Block], rules: MeasuringSpec) -> bool:
    """Whether the last few blocks' step times lie within the tolerance around their median."""
    if len(blocks) < rules.steady_blocks:
        return False
    times = [block.step_seconds for block in blocks[-rules.steady_blocks :]]
    middle = median(times)
    return max(abs(t - middle) for t in times) <= rules.steady_tolerance * middle
