"""What the comparison knows of a phase. Adding one means one file in aggregate.analysis.phases, and its name in registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.plausibility import Problems
from shared_spec.results import format
from shared_spec.results.format import Done
from shared_spec.results.measurements import Measurements
from shared_spec.results.prices import Prices
from shared_spec.workload.spec import PhaseName

M = TypeVar("M", bound=Measurements)


@dataclass(frozen=True)
class Source:
    """Where measurements come from.

    Attributes:
        result: the whole result.
        outcome: the outcome they are of.
        prices: what a price is found in.
    """

    result: format.Result
    outcome: Done
    prices: Prices


class Work(NamedTuple):
    """Work that several phases time.

    Attributes:
        what: a training step, or an inference of one image.
        pointer: within the measurements.
        seconds: it took.
    """

    what: str
    pointer: str
    seconds: float


def _no_time(measured: Measurements) -> float:
    return 0.0


def _no_windows(measured: Measurements) -> dict[str, float]:
    return {}


def _no_work(measured: Measurements, result: format.Result) -> Iterator[Work]:
    return iter(())


@dataclass(frozen=True)
class Phase(Generic[M]):
    """A phase, from its measurements to its figures.

    Attributes:
        name: as results have it.
        metrics: its figures, in the order of the tables.
        derive: the figures of one outcome that ended well.
        contradictions: what in its measurements cannot be true; gets the JSON pointer of these, and the whole result.
        seconds: what it timed, which cannot exceed the life of its process.
        windows: seconds of the windows that a profile asks a least length of, by pointer within the measurements.
        asked: the profile's field that says how long these are at least.
        work: what it timed of work that other phases time too.
        repeated: key of the metric that its repeats are to agree on to within the spec's interval_tolerance.
        seeded: what is measured depends on the seed, so that repeats of one count once.
    """

    name: PhaseName
    metrics: tuple[Metric, ...]
    derive: Callable[[M, Source], Iterator[Figure]]
    contradictions: Callable[[M, str, format.Result], Problems]
    seconds: Callable[[M], float] = _no_time
    windows: Callable[[M], dict[str, float]] = _no_windows
    asked: str = ""
    work: Callable[[M, format.Result], Iterator[Work]] = _no_work
    repeated: str = ""
    seeded: bool = False
