"""What measurements are made of: numbers within their bounds, series, energy, timed windows, checks.

All times are in seconds, sizes in bytes, energies in joules.
"""

import math
import sys
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, model_validator
from typing_extensions import TypeAliasType

from shared_spec.results import stability
from shared_spec.schema import ARRAY, Finite, Model, contradiction


def _nanoseconds(seconds: float) -> float:
    """A time as it is written: clocks tell nanoseconds, and the digits beyond double the size of a file."""
    return round(seconds, 9) or seconds


def _all_nanoseconds(samples: tuple[float, ...]) -> list[float]:
    return [_nanoseconds(seconds) for seconds in samples]


def finite(value: float) -> float | None:
    """None in place of NaN and infinities: JSON has no such numbers, and a reader must not guess."""
    return value if math.isfinite(value) else None


Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Count = Annotated[int, Field(ge=1, le=10**12)]
Whole = Annotated[int, Field(ge=0, le=2**63 - 1)]
Bytes = Annotated[int, Field(ge=0, le=10**15)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=sys.float_info.max)]
NonNegative = Annotated[float, Field(ge=0, le=sys.float_info.max)]
Joules = Annotated[float, Field(ge=0, le=1e12)]
Seconds = Annotated[float, Field(ge=0, le=1e8), PlainSerializer(_nanoseconds, when_used="json")]
Duration = Annotated[float, Field(gt=0, le=1e8), PlainSerializer(_nanoseconds, when_used="json")]
Samples = TypeAliasType(
    "Samples",
    Annotated[
        tuple[Annotated[float, Field(gt=0, le=1e8)], ...],
        ARRAY,
        Field(fail_fast=True, min_length=1, max_length=10**7),
        PlainSerializer(_all_nanoseconds, when_used="json"),
    ],
)
Block = Annotated[tuple[Count, Duration], ARRAY]
Blocks = TypeAliasType(
    "Blocks", Annotated[tuple[Block, ...], ARRAY, Field(fail_fast=True, min_length=1, max_length=10**6)]
)
"""Rows of [steps, seconds]: steps between two synchronisations and the time they took, in order."""
FeedingBlock = Annotated[tuple[Count, Duration, Duration], ARRAY]
LossTrace = TypeAliasType(
    "LossTrace", Annotated[tuple[NonNegative | None, ...], ARRAY, Field(fail_fast=True, max_length=100_000)]
)
Memory = TypeAliasType(
    "Memory",
    Annotated[
        dict[str, Bytes | None],
        Field(
            max_length=50,
            description="Figures by name, bytes; null where the framework does not tell. host_peak: high-water resident "
            "set of the phase process (ru_maxrss); host_before_framework, host_before_model: its resident set before the "
            "framework was imported, and when the backend stood and no parameters were loaded (before 1.1 "
            "host_before_model was the former); host_loader: of it the data set and the batches made ahead; "
            "footprint_peak: high-water footprint on macOS, Metal's memory included; nvml_process: what the NVIDIA driver "
            "books on the process at the end, reserves and context included; nvml_process_peak: the most that it booked "
            "there, asked every two seconds and at the end; mlx_peak, mlx_active, mlx_cache: "
            "mx.get_peak_memory etc.; tf_peak, tf_current: tf.config.experimental.get_memory_info",
        ),
    ],
)
PEAKS = {
    "mlx_peak": "peak of MLX's allocations, without its cache",
    "tf_peak": "peak of TensorFlow's device memory in use, not reserved",
    "host_peak": "high-water resident set of the whole process",
}
"""Memory figures that can stand for a phase's peak, and what each is, in words for a reader."""
EnergySource = Literal[
    "nvml-counter", "nvml-integrated", "rapl-package", "rapl-psys", "apple-soc", "wall-meter", "none"
]


Instant = Annotated[float, Field(ge=0, le=1e11)]
Span = Annotated[tuple[Instant, Instant], ARRAY]
"""Beginning and end by the time of day, seconds since 1970 (UTC)."""


class EnergyPart(Model):
    """Energy of another part of the machine over the same window."""

    what: Name = Field(description="Which part")
    joules: Joules | None = Field(description="null where it could not be measured")
    reason: Text | None = Field(description="Why it could not; null where it could")

    @model_validator(mode="after")
    def _figure_or_reason(self) -> Self:
        if (self.joules is None) == (self.reason is None):
            raise contradiction(("", "must have either joules or the reason why there are none"))
        return self

    def plus(self, later: Self) -> Self:
        """The part over this window and a later one; not known where one of the two is not."""
        lacking = self.reason or later.reason
        total = None if lacking or self.joules is None or later.joules is None else self.joules + later.joules
        return self.changed(joules=total, reason=lacking)


class Energy(Model):
    """Energy of a window, or why it could not be measured."""

    joules: Joules | None = Field(description="null where it could not be measured")
    reason: Text | None = Field(description="Why it could not, in one sentence; null where it could")
    source: EnergySource = Field(description="Which meter")
    scope: Text = Field(description="What is in the figure")
    samples: Whole = Field(description="Readings behind the figure: 1 for the difference of a counter, 0 for no meter")
    windows: Annotated[tuple[Span, ...], ARRAY, Field(min_length=1, max_length=100_000)] | None = Field(
        default=None,
        description="When the window was, UTC seconds since 1970, one for each process: what the log of a plug is matched "
        "with; null where nobody noted it, and before 1.2",
    )
    step_seconds: Duration | None = Field(
        default=None,
        description="Longest time between two steps of the meter, so that a window may have gained or lost its mean power "
        "times this; null for a power that was given, and before 2.0",
    )
    beside: Annotated[tuple[EnergyPart, ...], ARRAY, Field(max_length=16)] | None = Field(
        default=None,
        description="What else of the machine was metered over the same window, not in joules: a GPU's host, a "
        "processor's memory; null where joules are of all there is to meter, and before 2.0",
    )

    @model_validator(mode="after")
    def _figure_or_reason(self) -> Self:
        if (self.joules is None) == (self.reason is None):
            raise contradiction(("", "must have either joules or the reason why there are none"))
        return self

    def watts(self, seconds: float) -> float | None:
        """Mean power over a window of `seconds`; None where the energy is not known."""
        return None if self.joules is None else self.joules / seconds

    def uncertainty(self, seconds: float) -> float | None:
        """Joules that a window of `seconds` may have gained or lost at its ends, where the meter moves in steps.

        What it shows is older than the clock by up to a step, at the start and at the end: at worst a step at mean power.
        """
        watts = self.watts(seconds)
        return None if watts is None or self.step_seconds is None else watts * self.step_seconds

    def plus(self, later: "Energy") -> Self:
        """This window and a later one of the same meter as one; not known where one of the two is not."""
        lacking = self.reason or later.reason
        total = None if lacking or self.joules is None or later.joules is None else self.joules + later.joules
        parts = None
        if self.beside is not None and later.beside is not None and len(self.beside) == len(later.beside):
            parts = tuple(one.plus(other) for one, other in zip(self.beside, later.beside, strict=True))
        return self.changed(
            joules=total, reason=lacking, samples=max(self.samples, later.samples), beside=parts,
            windows=(*(self.windows or ()), *(later.windows or ())) or None,
        )  # fmt: skip


class IdleEnergy(Energy):
    """Energy of some seconds in which nothing was asked of the machine."""

    seconds: Duration

    @property
    def idle_watts(self) -> float | None:
        return self.watts(self.seconds)


class Window(Model):
    """A window of steps at one batch size."""

    window_blocks: Blocks = Field(description="Steps between two synchronisations and the seconds they took, in order")

    @property
    def steps(self) -> int:
        return sum(steps for steps, _ in self.window_blocks)

    @property
    def seconds(self) -> float:
        return math.fsum(seconds for _, seconds in self.window_blocks)

    @property
    def steps_per_second(self) -> float:
        return stability.step_rate(self.window_blocks)

    @property
    def step_seconds_mean(self) -> float:
        return self.seconds / self.steps


class BatchWindow(Window):
    """A window that knows its batch size."""

    batch_size: Count = Field(description="Images of a (global) batch")

    @property
    def images(self) -> int:
        return self.steps * self.batch_size

    @property
    def images_per_second(self) -> float:
        """Images over total time, never a mean of rates."""
        return self.batch_size * self.steps_per_second

    @property
    def block_images_per_second(self) -> list[float]:
        """The rate of each block: the spread within the window."""
        return [self.batch_size * steps / seconds for steps, seconds in self.window_blocks]

    @property
    def images_per_second_interval(self) -> tuple[float, float] | None:
        """95 % interval of the rate within this process; None where there are too few blocks."""
        interval = stability.window_interval(self.window_blocks)
        return None if interval is None else (self.batch_size * interval[0], self.batch_size * interval[1])


class Check(Model):
    """One proof: passed when the figure does not exceed the bound."""

    name: Name
    passed: bool
    figure: Finite | None = Field(description="null where the figure was not finite")
    bound: Finite
    detail: Text = Field(description="What the figure is of")


class Proved(Model):
    """Measurements whose timed outputs are looked at when nothing is timed any more."""

    checks: Annotated[tuple[Check, ...], ARRAY, Field(max_length=1000)] | None = Field(
        description="What was made of the outputs of what was timed; null before 1.2"
    )
    unchecked: Text | None = Field(description="What no check was made of, and why; null where there is nothing to say")

    @property
    def failed_checks(self) -> list[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks or () if not check.passed]
