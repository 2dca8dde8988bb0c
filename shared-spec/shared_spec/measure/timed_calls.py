"""What timed calls were asked and what they answered, kept until nothing is timed any more."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TimedCalls:
    """Answers of timed calls.

    Attributes:
        what: which calls.
        images: uint8 [N,S,S,3], what they were asked.
        logits: float32 [N,classes], what they answered.
    """

    what: str
    images: np.ndarray
    logits: np.ndarray


Observer = Callable[[TimedCalls], None]
"""Is given timed calls when nothing is timed any more."""


def unobserved(calls: TimedCalls) -> None:
    """An Observer that keeps nothing."""


@dataclass
class Reservoir:
    """`size` of however many calls, each as likely, chosen after they were timed (reservoir sampling)."""

    size: int = 8
    draw: random.Random = field(default_factory=random.Random)
    kept: list[Any] = field(default_factory=list)
    offered: int = 0

    def offer(self, call: Any) -> None:
        """Keep this call, perhaps, in place of another."""
        self.offered += 1
        if len(self.kept) < self.size:
            self.kept.append(call)
        elif (place := self.draw.randrange(self.offered)) < self.size:
            self.kept[place] = call
