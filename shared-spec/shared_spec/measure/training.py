"""The training phase: first step, warm-up, the window, single steps, and whether the device waits for the host."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Batch, Handle
from shared_spec.data.batches import HostBatch
from shared_spec.machine.energy.meter import Meter
from shared_spec.measure.clock import Clock
from shared_spec.measure.timing import LEAST_BLOCKS, Block, Progress, Stepper, as_rows, portion, silent
from shared_spec.results.measurements import HostSeconds, RanksTraining, Training, TryMeasurements
from shared_spec.results.quantities import FeedingBlock, IdleEnergy, finite
from shared_spec.workload import params
from shared_spec.workload.spec import Profile, Spec


@dataclass
class Trainer:
    """Training steps in order: takes batches, hands them to the backend, keeps the first losses.

    Attributes:
        batches: this rank's rows of each batch.
        batch_size: of the global batch.
        trace: handles of the first losses and gradient norms, left on the device until asked for.
        last: handle of the last step.
        deadline: of the clock; after it nothing is measured more often than it must be.
        host_wait: seconds spent waiting for the host to have a batch ready.
        transfer: seconds spent in the backend's to_device.
        dispatch: seconds spent in its train_step: handing work over, and on a synchronous device the work itself.
    """

    backend: Backend
    spec: Spec
    batches: Iterator[HostBatch]
    batch_size: int
    clock: Clock
    step_number: int = 0
    host_wait: float = 0.0
    transfer: float = 0.0
    dispatch: float = 0.0
    trace: list[Handle] = field(default_factory=list)
    last: Handle = None
    deadline: float = math.inf

    def step(self) -> Handle:
        batch = self.next_batch()
        start = self.clock()
        handle = self.step_on(batch)
        self.dispatch += self.clock() - start
        if len(self.trace) < self.spec.measuring.loss_trace_steps:
            self.trace.append(handle)
        self.step_number += 1
        self.last = handle
        return handle

    def next_batch(self) -> Batch:
        """The next batch of the data, on its way to the device."""
        start = self.clock()
        host = next(self.batches)
        ready = self.clock()
        batch = self.backend.to_device(host.images, host.targets)
        self.host_wait += ready - start
        self.transfer += self.clock() - ready
        return batch

    def step_on(self, batch: Batch) -> Handle:
        """Dispatch a step on a batch that is there; neither counted nor traced."""
        return self.backend.train_step(batch, self.spec.learning_rate(self.step_number, self.batch_size))

    def host_seconds(self) -> dict[str, float]:
        """What the host has spent so far, by what on."""
        return {"wait": self.host_wait, "transfer": self.transfer, "dispatch": self.dispatch}

    def figures(self, step_seconds: float) -> dict[str, float]:
        """What is shown while training; call it only after a synchronisation, or it waits for one."""
        return {"images_per_second": self.batch_size / step_seconds, "loss": self.loss()}

    def loss(self) -> float:
        """Of the last step."""
        return float(self.backend.to_numpy(self.last)[0])

    def losses_and_norms(self) -> tuple[list[float], list[float]]:
        """The first losses and gradient norms, in order."""
        pairs = [self.backend.to_numpy(handle) for handle in self.trace]
        return [float(loss) for loss, _ in pairs], [float(norm) for _, norm in pairs]


def measure_idle(meter: Meter, seconds: float, sleep: Callable[[float], None] = time.sleep) -> IdleEnergy:
    """Energy of `seconds` in which this process does nothing."""
    meter.start()
    sleep(seconds)
    return IdleEnergy(**meter.stop().model_dump(), seconds=seconds)


def measure_training(
    trainer: Trainer, profile: Profile, idle: IdleEnergy, meter: Meter, progress: Progress = silent,
    idle_before: IdleEnergy | None = None,
) -> Training:  # fmt: skip
    """Compile, warm up, time a window without a wait per step, then single steps with one.

    The meter runs over the window, no more and no less.

    Args:
        idle: what `measure_idle` returned with the model built.
        idle_before: what it returned before the framework was imported; None where nothing meters it.

    Returns:
        What this rank saw, and in `parallel` what all of them did; without memory, which the process is asked for at
        its end.

    Raises:
        RanksApart: the ranks' parameters differ at the end.
    """
    backend, clock = trainer.backend, trainer.clock
    stepper = Stepper(trainer.step, backend.synchronize, trainer.spec.measuring, clock, backend.group, trainer.deadline)
    progress(0.0, "first step (compiles)")
    first = stepper.block(1)
    warmup, steady = stepper.warm_up(profile.warmup_max_seconds, portion(progress, 0.0, 0.3))
    backend.reset_peak_memory()
    before = trainer.host_seconds()
    meter.start()
    window = stepper.window(
        profile.window_min_steps,
        profile.window_seconds,
        warmup[-1].step_seconds,
        portion(progress, 0.3, 0.5),
        trainer.figures,
    )
    energy = meter.stop()
    spent = {name: seconds - before[name] for name, seconds in trainer.host_seconds().items()}
    host = HostSeconds(**spent, drain=math.fsum(block.drain_seconds for block in window))
    samples = _single_steps(stepper, profile.step_samples, portion(progress, 0.8, 0.15))
    losses, norms = trainer.losses_and_norms()
    progress(0.95, "with and without feeding")
    feeding = measure_feeding(trainer, FEEDING_SHARE * profile.window_seconds, warmup[-1].step_seconds)
    return Training(
        parallel=_of_all_ranks(backend, window, samples),
        batch_size=trainer.batch_size,
        first_step_seconds=first.seconds,
        warmup_blocks=as_rows(warmup),
        steady=steady,
        window_blocks=as_rows(window),
        window_host_wait_seconds=host.wait,
        window_host_seconds=host,
        feeding_blocks=feeding,
        idle=idle,
        idle_before=idle_before,
        energy=energy,
        step_seconds=tuple(samples),
        loss_trace=tuple(map(finite, losses)),
        norm_trace=tuple(map(finite, norms)),
        memory={},
        checks=None,
        unchecked=None,
    )


def _single_steps(stepper: Stepper, count: int, progress: Progress) -> list[float]:
    """Seconds of `count` steps with a synchronisation each, or of as many as there is time for."""
    samples: list[float] = []

    def wanted() -> int:
        enough = min(count, LEAST_BLOCKS) if stepper.clock() >= stepper.deadline else count
        return int(len(samples) < enough)

    while ranks.decided(stepper.group, wanted()):
        samples.append(stepper.block(1).seconds)
        progress(len(samples) / count, "single steps")
    return samples


def _of_all_ranks(backend: Backend, window: list[Block], samples: list[float]) -> RanksTraining | None:
    """What the ranks saw of the same steps, and that they have remained one; None where there is one rank."""
    group = backend.group
    if group.size == 1:
        return None
    ranks.check_same(group, params.fingerprint(backend.export_params()), "parameters after the training steps")
    exchange = backend.communication() or {}
    return RanksTraining(
        rank_window_blocks=tuple(ranks.gathered_values(group, as_rows(window))),
        rank_step_seconds=tuple(ranks.gathered_values(group, samples)),
        communication_seconds=exchange.get("seconds"),
        overlapped_seconds=exchange.get("overlapped_seconds"),
        params_equal=True,
    )


FEEDING_SHARE = 0.25
"""Length of the comparison with and without feeding, as a part of the window's least length."""


def measure_feeding(trainer: Trainer, seconds: float, step_seconds: float) -> tuple[FeedingBlock, ...]:
    """Whether the device waits for the host: steps on fresh batches against steps on one batch that stays on the device.

    The host's own times cannot tell: while it waits for a batch or moves one, the device may still have work queued,
    or may not. What a step takes longer with fresh batches is what the device waits for them, the transfer and the
    processor time that the loader takes from the dispatching thread included. The two take turns, in the order
    a b b a, so that drift hits both alike.

    Returns:
        Rows of [steps, seconds with fresh batches, seconds with the resident one]; one at least.
    """
    rules, clock, group = trainer.spec.measuring, trainer.clock, trainer.backend.group
    synchronize, resident = trainer.backend.synchronize, trainer.next_batch()
    fed = Stepper(trainer.step, synchronize, rules, clock)
    unfed = Stepper(lambda: trainer.step_on(resident), synchronize, rules, clock)
    unfed.block(1)
    steps = max(1, math.ceil(rules.block_seconds / max(step_seconds, 1e-9)))
    rows: list[FeedingBlock] = []

    def wanted() -> int:
        if rows and clock() >= trainer.deadline:
            return 0
        return steps if not rows or sum(row[1] + row[2] for row in rows) < seconds else 0

    while count := ranks.decided(group, wanted()):
        order = (fed, unfed) if len(rows) % 2 == 0 else (unfed, fed)
        took = {id(stepper): stepper.block(count).seconds for stepper in order}
        rows.append((count, took[id(fed)], took[id(unfed)]))
    return tuple(rows)


def measure_batch(
    trainer: Trainer, steps: int, seconds: float = 0.0, evaluated: np.ndarray | None = None, progress: Progress = silent
) -> TryMeasurements:
    """Whether a batch size trains, and how fast: a first step, one that settles, then `steps`, for `seconds` at least.

    Args:
        evaluated: uint8 [N,S,S,3], images of an evaluation's batch that are then inferred; None: no evaluation.

    Returns:
        Without memory, which the process is asked for at its end.
    """
    backend = trainer.backend
    stepper = Stepper(trainer.step, backend.synchronize, trainer.spec.measuring, trainer.clock)
    first = stepper.block(1)
    progress(0.2, "first step done")
    settled = stepper.block(1)
    blocks = [stepper.block(steps)]
    if (left := seconds - blocks[0].seconds) > 0:
        blocks += stepper.window(1, left, settled.seconds, portion(progress, 0.2, 0.7))
    if evaluated is not None:
        progress(0.9, "evaluating")
        backend.to_numpy(backend.infer(backend.to_device(evaluated, None)))
    return TryMeasurements(
        first_step_seconds=first.seconds,
        window_blocks=as_rows(blocks),
        memory={},
        whole=evaluated is not None,
        checks=None,
        unchecked=None,
    )
