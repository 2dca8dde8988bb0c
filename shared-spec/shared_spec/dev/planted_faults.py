"""What the platforms' tests of planted faults share: what a fault is, and those that know no framework."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


@dataclass(frozen=True)
class Fault:
    """A fault, and what has to find it.

    Attributes:
        plant: puts it into the platform's own code until the test ends.
        fails: name of the check of conformance that is meant for it.
        precisions: in which it is tried.
    """

    plant: Plant
    fails: str
    precisions: tuple[str, ...] = ("fp32", "bf16")


def cases(faults: Mapping[str, Fault]) -> list[tuple[str, str]]:
    """(name of a fault, precision) of every test."""
    return [(name, precision) for name, fault in faults.items() for precision in fault.precisions]


def round_to(x: Any, bits: int) -> Any:
    """float32 values of any framework with so many bits of significand (Veltkamp's splitting, Numer. Math. 18, 1971)."""
    scaled = x * (2.0 ** (24 - bits) + 1)
    return scaled - (scaled - x)


def cached_batch_1(backend: Any) -> Plant:
    """A backend class whose answer to the first single image is that to all of them."""

    def plant(patch: Patch) -> None:
        infer, cache = backend.infer, dict[str, Any]()

        def cached(self: Any, batch: Any) -> Any:
            return infer(self, batch) if len(batch[0]) > 1 else cache.setdefault("first", infer(self, batch))

        patch.setattr(backend, "infer", cached)

    return plant


def late_rate(backend: Any) -> Plant:
    """A backend class whose steps take the learning rate of the step before."""

    def plant(patch: Patch) -> None:
        step, rates = backend.train_step, [0.0]

        def late(self: Any, batch: Any, lr: float) -> Any:
            rates.append(lr)
            return step(self, batch, rates[-2])

        patch.setattr(backend, "train_step", late)

    return plant
