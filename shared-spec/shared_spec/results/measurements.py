"""What each phase measures, as types of the result format, and the figures that follow from the raw samples.

All times are in seconds, sizes in bytes and energies in joules, unless a name says otherwise.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from shared_spec.results import stability
from shared_spec.results.quantities import (
    BatchWindow,
    Blocks,
    Check,
    Count,
    Duration,
    Energy,
    FeedingBlock,
    Fraction,
    IdleEnergy,
    Instant,
    LossTrace,
    Memory,
    NonNegative,
    Positive,
    Proved,
    Samples,
    Seconds,
    Sha256,
    Text,
    Whole,
    Window,
)
from shared_spec.schema import ARRAY, Finite, Model


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
    idle_before: IdleEnergy | None = Field(
        default=None,
        description="Energy before the framework was imported: what the machine takes when it is not asked for anything; "
        "null where there is no meter, and before 2.0",
    )
    energy: Energy = Field(description="Energy over exactly the throughput window")
    memory: Memory

    @property
    def watts(self) -> float | None:
        """Mean power over the window; None where it was not measured."""
        return self.energy.watts(self.seconds)

    @property
    def joules_per_image(self) -> float | None:
        return None if self.energy.joules is None else self.energy.joules / self.images

    @property
    def joules_above_idle(self) -> float | None:
        """Energy of the window above what the machine took before the framework; None where either is not known."""
        idle = self.idle_before.idle_watts if self.idle_before else None
        return None if self.energy.joules is None or idle is None else self.energy.joules - idle * self.seconds


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
    whole: bool | None = Field(
        default=None,
        description="Whether it trained for as long as the profile's window and then evaluated; null before 2.0",
    )


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


class Evaluation(Model):
    """An evaluation within a full training; clocks and energy count from the start of the training."""

    step: Count = Field(description="Training steps done")
    seconds: Duration = Field(description="Clock at the end of this evaluation")
    evaluation_seconds: Seconds = Field(description="Evaluation so far")
    checkpoint_seconds: Seconds = Field(description="Waiting for checkpoints so far")
    first_seconds: Seconds | None = Field(
        description="First steps and first inferences of processes so far, compilation included; null before 2.0"
    )
    train_loss: Finite | None = Field(
        description="Mean of evenly spaced steps since the last evaluation; null where not finite"
    )
    test_loss: Finite | None
    top1: Fraction
    class_right: Annotated[tuple[Whole, ...], ARRAY, Field(max_length=100_000)] | None = Field(
        description="Test images that were told rightly, for each class; null before 1.2"
    )
    joules: NonNegative | None = Field(description="Energy so far")
    ended: Instant | None = Field(
        default=None, description="Its end, UTC seconds since 1970; null where nobody noted it, and before 1.2"
    )


class Crossing(NamedTuple):
    """Where the accuracy crossed the target, interpolated between evaluations.

    Attributes:
        steps: training steps done.
        seconds: of the clock.
    """

    steps: float
    seconds: float


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
    steps_per_epoch: Count
    epochs_to_target: Positive | None = Field(
        description="Epochs trained when an evaluation first showed the target; null: it was not reached"
    )
    seconds_to_target: Duration | None = Field(
        description="End of that evaluation; evaluation, compilation and checkpoints counted in"
    )
    images: Count = Field(description="Training images processed")
    seconds: Duration = Field(description="From the first image to the last evaluation")
    evaluation_seconds: Seconds = Field(description="... of which evaluation")
    checkpoint_seconds: Seconds = Field(
        description="... of which waiting for checkpoints: for the state to come to the host, and for the one before to "
        "be written; before 2.0 for all of the writing"
    )
    checkpoint_write_seconds: Seconds | None = Field(
        description="What a thread took to write the checkpoints meanwhile; null before 2.0"
    )
    first_step_seconds: Seconds = Field(description="... of which first steps of a process, compilation included")
    first_inference_seconds: Seconds | None = Field(
        description="... of which first inferences of a process, compilation included; in evaluation_seconds too. null "
        "before 2.0"
    )
    host_wait_seconds: Seconds = Field(description="... of which waiting for a batch from the host")
    evaluations: Annotated[tuple[Evaluation, ...], ARRAY, Field(min_length=1, max_length=100_000)]
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
    def epochs(self) -> float:
        """Epochs trained, as far as the last evaluation."""
        return self.evaluations[-1].step / self.steps_per_epoch

    @property
    def best_top1(self) -> float:
        """Of all evaluations: chosen after the fact, on the images that it is read from."""
        return max(evaluation.top1 for evaluation in self.evaluations)

    @property
    def final_top1(self) -> float:
        return self.evaluations[-1].top1

    @property
    def at_target(self) -> Evaluation | None:
        """The first evaluation that shows the target; None where none does."""
        return next((row for row in self.evaluations if row.top1 >= self.target_top1), None)

    @property
    def crossing(self) -> Crossing | None:
        """Where the accuracy crossed the target, by all evaluations; None: not reached."""
        return self._crossing_among(self.evaluations)

    @property
    def crossing_at_epochs(self) -> Crossing | None:
        """The same by the evaluations at the ends of epochs alone: of trainings that are evaluated more or less often.

        More evaluations see the target sooner, for the accuracy goes up and down on its way.
        """
        return self._crossing_among([row for row in self.evaluations if row.step % self.steps_per_epoch == 0])

    def _crossing_among(self, rows: Sequence[Evaluation]) -> Crossing | None:
        """Where a line from the last of `rows` below the target to the first above it crosses it.

        Where the first of all is above it, there is nothing to interpolate from, and it stands itself.
        """
        i = next((i for i, row in enumerate(rows) if row.top1 >= self.target_top1), None)
        if i is None:
            return None
        above, below = rows[i], rows[max(i - 1, 0)]
        part = (self.target_top1 - below.top1) / (above.top1 - below.top1) if i else 1.0
        steps, seconds = (
            old + part * (new - old) for old, new in ((below.step, above.step), (below.seconds, above.seconds))
        )
        return Crossing(steps, seconds)

    @property
    def reached(self) -> bool:
        """Whether the target was reached."""
        return self.epochs_to_target is not None


Measurements = Conformance | Ceiling | Training | Latency | Inference | MaxBatch | Convergence
