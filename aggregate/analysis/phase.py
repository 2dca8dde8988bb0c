"""What the comparison knows of a phase. Adding one means one file in aggregate.analysis.phases, and its name in registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.plausibility import Problems
from aggregate.analysis.result import Measured, Result
from shared_spec.results.prices import Prices
from shared_spec.workload.spec import Spec


@dataclass(frozen=True)
class Source:
    """Where measurements come from.

    Attributes:
        result: the whole result.
        outcome: the outcome they are of.
        prices: what a price is found in.
    """

    result: Result
    outcome: dict[str, Any]
    prices: Prices


@dataclass(frozen=True)
class Head:
    """What measurements must agree with: the head of the result, and its spec."""

    content: dict[str, Any]
    spec: Spec

    @property
    def world_size(self) -> int:
        """Ranks that trained together; 1 for one process."""
        size: int = (self.content["parallel"] or {}).get("world_size", 1)
        return size

    def measured(self, phase: str) -> list[Measured]:
        """The measurements of another phase of the same result."""
        return [o["measurements"] for o in self.content["phases"] if o["phase"] == phase and o["status"] == "ok"]


def _no_time(measured: Measured) -> float:
    return 0.0


def _no_windows(measured: Measured) -> dict[str, float]:
    return {}


def _no_work(measured: Measured, head: Head) -> Iterator[tuple[str, str, float]]:
    return iter(())


@dataclass(frozen=True)
class Phase:
    """A phase, from its measurements to its figures.

    Attributes:
        name: as results have it.
        metrics: its figures, in the order of the tables.
        derive: the figures of one outcome that ended well.
        contradictions: what in its measurements cannot be true; gets the JSON pointer of these.
        seconds: what it timed, which cannot exceed the life of its process.
        windows: seconds of the windows that a profile asks a least length of, by pointer within the measurements.
        asked: the profile's field that says how long these are at least.
        work: work that other phases time too, as (what, pointer within the measurements, seconds).
    """

    name: str
    metrics: tuple[Metric, ...]
    derive: Callable[[Measured, Source], Iterator[Figure]]
    contradictions: Callable[[Measured, str, Head], Problems]
    seconds: Callable[[Measured], float] = _no_time
    windows: Callable[[Measured], dict[str, float]] = _no_windows
    asked: str = ""
    work: Callable[[Measured, Head], Iterator[tuple[str, str, float]]] = _no_work
