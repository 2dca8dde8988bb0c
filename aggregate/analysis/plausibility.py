"""What two figures of the same thing may differ by before one of them must be wrong."""

import math
from collections.abc import Iterator

from shared_spec.results.format import Result
from shared_spec.results.stability import Blocks

Problems = Iterator[tuple[str, str]]
"""As (JSON pointer, what)."""

ROUNDING = 1 + 1e-6
"""A sum of times may exceed the time that they are parts of by this factor: all are of one clock, but written to the
nanosecond, and added up in another order."""
UNIT = 30.0
"""Two times of the same work are further apart than this factor only if one is in another unit (a thousand is beyond
the square of it)."""
MAX_FLOPS = 1e16
"""Operations per second beyond any one device's matrix products."""

A_TRAINING_STEP = "a training step"
AN_INFERENCE_OF_ONE = "an inference of one image"
"""Work that several phases time."""


def total_seconds(blocks: Blocks) -> float:
    """Seconds of all the blocks."""
    return math.fsum(seconds for _, seconds in blocks)


def step_seconds(blocks: Blocks) -> float:
    """Mean seconds a step."""
    return total_seconds(blocks) / sum(steps for steps, _ in blocks)


def world_size(result: Result) -> int:
    """Ranks that trained together; 1 for one process."""
    return result.parallel.world_size if result.parallel else 1


def apart(here: str, seconds: float, what: str, other: float) -> Problems:
    """A problem if two times of the same work cannot both be in seconds."""
    if max(seconds, other) > UNIT * min(seconds, other):
        yield here, f"says {seconds:.3g} s, but {what} {other:.3g} s: one of the two is wrong, or not in seconds"
