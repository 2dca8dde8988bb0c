"""What each phase measures, as types of the result format, and the figures that follow from the raw samples.

All times are in seconds, sizes in bytes and energies in joules, unless a name says otherwise.
"""

import math
import sys
from typing import Annotated, Final, Literal, Self

import numpy as np
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
            "books on the process at the end, reserves and context included; mlx_peak, mlx_active, mlx_cache: "
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

    @model_validator(mode="after")
    def _figure_or_reason(self) -> Self:
        if (self.joules is None) == (self.reason is None):
            raise contradiction(("", "must have either joules or the reason why there are none"))
        return self

    def watts(self, seconds: float) -> float | None:
        """Mean power over a window of `seconds`; None where the energy is not known."""
        return None if self.joules is None else self.joules / seconds


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


class Conformance(Model):
    """Whether the backend computes the specified model, gradients and updates on this machine."""

    passed: bool = Field(description="Whether all checks were passed")
    checks: Annotated[tuple[Check, ...], ARRAY, Field(min_length=1, max_length=1000)]

    @property
    def failed_checks(self) -> list[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if not check.passed]

    @property
    def failed(self) -> list[str]:
        """Their names."""
        return [check.name for check in self.failed_checks]


class MatmulSize(Model):
    """Products of two [n,n] matrices, 2 n^3 operations each."""

    n: Count
    blocks: Blocks = Field(description="Products between two synchronisations and the seconds they took")

    @property
    def operations_per_second(self) -> float:
        return 2 * float(self.n) ** 3 * stability.step_rate(self.blocks)


class Ceiling(Proved):
    """What this device can do at this precision: the rate of square matrix products."""

    sizes: Annotated[tuple[MatmulSize, ...], ARRAY, Field(min_length=1, max_length=64)]

    @property
    def fastest(self) -> MatmulSize:
        return max(self.sizes, key=lambda size: size.operations_per_second)

    @property
    def matmul_peak(self) -> float:
        """Operations per second at the best size."""
        return self.fastest.operations_per_second


class RanksTraining(Model):
    """What several ranks saw of the same steps; in order of rank."""

    rank_window_blocks: Annotated[tuple[Blocks, ...], ARRAY, Field(min_length=2, max_length=100_000)] = Field(
        description="window_blocks of each rank; ranks start each block together"
    )
    rank_step_seconds: Annotated[tuple[Samples, ...], ARRAY, Field(min_length=2, max_length=100_000)] = Field(
        description="step_seconds of each rank"
    )
    communication_seconds: Seconds | None = Field(
        description="Mean time of rank 0 from the first to the last byte of a step's exchange of gradients, as the "
        "engine tells; null where it does not"
    )
    overlapped_seconds: Seconds | None = Field(description="... of which the backward pass was still computing")
    params_equal: Literal[True] = Field(
        description="Checked bit for bit after the last step; the phase fails otherwise"
    )


class HostSeconds(Model):
    """What the host spent a window on."""

    wait: Seconds = Field(description="Waiting for a batch")
    transfer: Seconds = Field(description="to_device")
    dispatch: Seconds = Field(description="train_step; on a synchronous device the work itself")
    drain: Seconds = Field(description="The synchronisations")


class Training(BatchWindow, Proved):
    """Training at the reference batch. With several ranks, what is not in `parallel` is rank 0's, memory included."""

    parallel: RanksTraining | None = Field(description="null for one process")
    first_step_seconds: Duration = Field(description="First step, compilation included")
    warmup_blocks: Blocks
    steady: bool = Field(description="Whether step times had become steady when the window began")
    window_host_wait_seconds: Seconds = Field(
        description="Part of the window in which the host waited for its loader to have a batch ready; the device may "
        "have had work meanwhile"
    )
    window_host_seconds: HostSeconds | None = Field(description="null before 1.1")
    feeding_blocks: (
        Annotated[tuple[FeedingBlock, ...], ARRAY, Field(fail_fast=True, min_length=1, max_length=100_000)] | None
    ) = Field(
        description="Steps, their seconds on fresh batches, and their seconds on one batch that stays on the "
        "device, in turns, after the window: what the first takes longer the device waits for the host. null "
        "before 1.1"
    )
    step_seconds: Samples = Field(description="Single steps with a synchronisation each, after the window")
    loss_trace: LossTrace = Field(
        description="Loss of each of the first training steps (up to measuring.loss_trace_steps); null where it was "
        "not finite"
    )
    norm_trace: LossTrace | None = Field(
        description="Norm of the gradients before clipping in each of these steps; null where it was not finite, and as "
        "a whole before 1.2"
    )
    idle: IdleEnergy = Field(description="Energy before the training, model already built")
    energy: Energy = Field(description="Energy over exactly the throughput window")
    memory: Memory

    @property
    def watts(self) -> float | None:
        """Mean power over the window; None where it was not measured."""
        return self.energy.watts(self.seconds)

    @property
    def joules_per_image(self) -> float | None:
        return None if self.energy.joules is None else self.energy.joules / self.images


class Latency(Proved):
    """Batch 1, one image after the other."""

    first_inference_seconds: Duration
    warmup_blocks: Blocks
    steady: bool = Field(description="Whether latencies had become steady when sampling began")
    host_to_host_seconds: Samples = Field(description="uint8 image in host memory to logits in host memory")
    device_only_seconds: Samples = Field(description="Image on the device to logits on the device")
    memory: Memory

    @property
    def latency_median(self) -> float:
        """Median of the host-to-host latencies, seconds."""
        return float(np.median(self.host_to_host_seconds))


class InferenceSize(BatchWindow):
    """Inference at one batch size, images on the device."""

    first_inference_seconds: Duration
    steady: bool
    memory: Memory


class Inference(Proved):
    """Inference at batch 1, 2, 4 ..."""

    sizes: Annotated[tuple[InferenceSize, ...], ARRAY, Field(min_length=1, max_length=64)]
    stopped: Text | None = Field(
        description="Why no larger batch was tried, null where the profile's bound was reached"
    )
    memory: Memory

    @property
    def fastest(self) -> InferenceSize:
        return max(self.sizes, key=lambda size: size.images_per_second)


class TryMeasurements(Window, Proved):
    """A few training steps at a batch size that fitted."""

    first_step_seconds: Duration
    memory: Memory


TryOutcome = Literal["fits", "out of memory", "time limit", "fault"]
FITS: Final = "fits"
FAULT: Final = "fault"


class Try(Model):
    """One batch size, tried in a process of its own."""

    batch_size: Count
    outcome: TryOutcome
    reason: Text | None = Field(description="What the try said where it did not fit")
    measurements: TryMeasurements | None = Field(description="Where it did")

    @property
    def images_per_second(self) -> float | None:
        return None if self.measurements is None else self.batch_size * self.measurements.steps_per_second


class MaxBatch(Model):
    """The search for the largest batch that trains."""

    batch_size: Count = Field(description="Largest batch that trained")
    ended_by: Text = Field(description="What kept the search from going further")
    tries: Annotated[tuple[Try, ...], ARRAY, Field(min_length=1, max_length=200)] = Field(
        description="Every batch tried, in order"
    )

    @property
    def failed_checks(self) -> list[Check]:
        """The checks that were not passed, of all tries."""
        return [check for one in self.tries if one.measurements for check in one.measurements.failed_checks]


Stop = Literal["target", "epochs"]


class Epoch(Model):
    """The end of an epoch of a full training; clocks and energy count from the start of the training."""

    epoch: Count
    seconds: Duration = Field(description="Clock at the end of this epoch's evaluation")
    evaluation_seconds: Seconds = Field(description="Evaluation so far")
    checkpoint_seconds: Seconds = Field(description="Checkpoints so far")
    train_loss: Finite | None = Field(description="Mean of evenly spaced steps of the epoch; null where not finite")
    test_loss: Finite | None
    top1: Fraction
    class_right: Annotated[tuple[Whole, ...], ARRAY, Field(max_length=100_000)] | None = Field(
        description="Test images that were told rightly, for each class; null before 1.2"
    )
    joules: NonNegative | None = Field(description="Energy so far")
    ended: Instant | None = Field(
        default=None, description="Its end, UTC seconds since 1970; null where nobody noted it, and before 1.2"
    )


class RanksConvergence(Model):
    """How many ranks trained."""

    world_sizes: Annotated[tuple[Count, ...], ARRAY, Field(min_length=1, max_length=100_000)] = Field(
        description="At first, then after each time that the training was taken up again from a checkpoint"
    )


class Convergence(Proved):
    """A training from the initial weights.

    All clocks start before the first image is touched and leave out only the time in which no process ran.
    """

    parallel: RanksConvergence | None = Field(
        description="null where one process at a time trained; otherwise batch_size is that of the global batch, all "
        "clocks are rank 0's, and the ranks' parameters were equal, bit for bit, at the end of each epoch"
    )
    batch_size: Count
    stop: Stop = Field(description="Whether the training was to end at the target or after all epochs")
    target_top1: Fraction
    epochs_to_target: Count | None = Field(description="null: the target was not reached")
    seconds_to_target: Duration | None = Field(
        description="Evaluation, compilation and checkpoints counted in; null: not reached"
    )
    images: Count = Field(description="Training images processed")
    seconds: Duration = Field(description="From the first image to the last evaluation")
    evaluation_seconds: Seconds = Field(description="... of which evaluation")
    checkpoint_seconds: Seconds = Field(description="... of which writing checkpoints")
    first_step_seconds: Seconds = Field(description="... of which first steps of a process, compilation included")
    host_wait_seconds: Seconds = Field(description="... of which waiting for a batch from the host")
    epochs: Annotated[tuple[Epoch, ...], ARRAY, Field(min_length=1, max_length=100_000)]
    class_images: Annotated[tuple[Whole, ...], ARRAY, Field(max_length=100_000)] | None = Field(
        description="Test images of each class; null before 1.2"
    )
    loss_trace: LossTrace = Field(description="Loss of each of the first training steps; null where not finite")
    energy: Energy = Field(description="Energy up to the last evaluation")
    resumed: Whole = Field(description="How often a new process went on from a checkpoint")
    final_params: Sha256 = Field(description="Fingerprint of the final weights")
    memory: Memory = Field(description="Largest figures of any of its processes, bytes")

    @property
    def images_per_second(self) -> float:
        """Over the whole training, everything counted in."""
        return self.images / self.seconds

    @property
    def training_seconds(self) -> float:
        """Without evaluation, checkpoints and first steps; not positive in a file that contradicts itself."""
        return self.seconds - self.evaluation_seconds - self.checkpoint_seconds - self.first_step_seconds

    @property
    def best_top1(self) -> float:
        return max(epoch.top1 for epoch in self.epochs)

    @property
    def reached(self) -> bool:
        """Whether the target was reached."""
        return self.epochs_to_target is not None


Measurements = Conformance | Ceiling | Training | Latency | Inference | MaxBatch | Convergence
