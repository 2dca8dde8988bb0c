"""The measuring loops. Only here (and in conformance's proof that a drain is real) is a clock read.

Every rate is images over total time of blocks. A block is a number of steps dispatched without waiting, then
one synchronisation before its clock stops: no host wait per step, no work left in flight, and enough blocks in
a window to see spread and drift. Raw times are returned; statistics are the reader's business.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

import numpy as np

from shared_spec import parallel, params
from shared_spec.backend import Backend, Batch, Handle, OutOfMemory
from shared_spec.batches import HostBatch
from shared_spec.energy import Meter
from shared_spec.parallel import ALONE, Group
from shared_spec.spec import MeasuringSpec, Profile, Spec

Clock = Callable[[], float]


class Progress(Protocol):
    """Called with the part done (0 to 1), a few words, and figures by name as they stand now: "loss" and the like."""

    def __call__(self, done: float, text: str, **figures: float) -> None: ...

    def __hash__(self) -> int: ...


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


def as_rows(blocks: Iterable[Block]) -> list[list[float]]:
    """Blocks as the [steps, seconds] pairs of the result format."""
    return [[block.steps, block.seconds] for block in blocks]


@dataclass
class Stepper:
    """A repeatable piece of device work, and how to time it in blocks.

    Where the work is shared by ranks, rank 0's clock decides for all of them, between blocks, how long the next one is
    and whether there is one; they start it together.
    """

    step: Callable[[], Handle]
    synchronize: Callable[..., None]
    rules: MeasuringSpec
    clock: Clock
    group: Group = ALONE

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
            going_on = not is_steady(blocks, self.rules) and spent < max_seconds
            return self.block_size(blocks[-1].step_seconds) if going_on else 0

        while count := parallel.decided(self.group, wanted()):
            blocks.append(self.block(count))
        return blocks, bool(parallel.decided(self.group, is_steady(blocks, self.rules)))

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
            return self.block_size(step_seconds) if steps < min_steps or seconds < min_seconds else 0

        while count := parallel.decided(self.group, wanted()):
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


@dataclass
class Trainer:
    """Training steps in order: takes batches, hands them to the backend, keeps the first losses.

    Attributes:
        batches: this rank's rows of each batch.
        batch_size: of the global batch.
        trace: handles of the first losses and gradient norms, left on the device until asked for.
        last: handle of the last step.
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

    def losses(self) -> list[float]:
        """The first losses, in order."""
        return [float(self.backend.to_numpy(handle)[0]) for handle in self.trace]


def measure_idle(meter: Meter, seconds: float, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Energy of `seconds` in which this process does nothing: what the machine takes before it is asked for anything."""
    meter.start()
    sleep(seconds)
    return {**meter.stop().as_dict(), "seconds": seconds}


def measure_training(trainer: Trainer, profile: Profile, meter: Meter, progress: Progress = silent) -> dict[str, Any]:
    """Compile, warm up, time a window without a wait per step, then single steps with one.

    The meter runs over the window, no more and no less.

    Returns:
        The training measurements of results.schema.json, without memory and idle energy; times in seconds. With
        several ranks they are this rank's, and "parallel" has what all of them saw.

    Raises:
        RanksApart: the ranks' parameters differ at the end.
    """
    backend, clock = trainer.backend, trainer.clock
    stepper = Stepper(trainer.step, backend.synchronize, trainer.spec.measuring, clock, backend.group)
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
    energy = meter.stop().as_dict()
    host = {name: seconds - before[name] for name, seconds in trainer.host_seconds().items()}
    host["drain"] = math.fsum(block.drain_seconds for block in window)
    samples = []
    for i in range(profile.step_samples):
        samples.append(stepper.block(1).seconds)
        progress(0.8 + 0.15 * (i + 1) / profile.step_samples, "single steps")
    losses = trainer.losses()
    progress(0.95, "with and without feeding")
    feeding = measure_feeding(trainer, FEEDING_SHARE * profile.window_seconds, warmup[-1].step_seconds)
    return {
        "parallel": _of_all_ranks(backend, window, samples),
        "batch_size": trainer.batch_size,
        "first_step_seconds": first.seconds,
        "warmup_blocks": as_rows(warmup),
        "steady": steady,
        "window_blocks": as_rows(window),
        "window_host_wait_seconds": host["wait"],
        "window_host_seconds": host,
        "feeding_blocks": feeding,
        "energy": energy,
        "step_seconds": samples,
        "loss_trace": losses,
    }


def _of_all_ranks(backend: Backend, window: list[Block], samples: list[float]) -> dict[str, Any] | None:
    """What the ranks saw of the same steps, and that they have remained one; None where there is one rank."""
    group = backend.group
    if group.size == 1:
        return None
    parallel.check_same(group, params.fingerprint(backend.export_params()), "parameters after the training steps")
    told = backend.communication() or {}
    return {
        "rank_window_blocks": parallel.gathered_values(group, as_rows(window)),
        "rank_step_seconds": parallel.gathered_values(group, samples),
        "communication_seconds": told.get("seconds"),
        "overlapped_seconds": told.get("overlapped_seconds"),
        "params_equal": True,
    }


FEEDING_SHARE = 0.25
"""Length of the comparison with and without feeding, as a part of the window's least length."""


def measure_feeding(trainer: Trainer, seconds: float, step_seconds: float) -> list[list[float]]:
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
    rows: list[list[float]] = []

    def wanted() -> int:
        return steps if not rows or sum(row[1] + row[2] for row in rows) < seconds else 0

    while count := parallel.decided(group, wanted()):
        order = (fed, unfed) if len(rows) % 2 == 0 else (unfed, fed)
        took = {id(stepper): stepper.block(count).seconds for stepper in order}
        rows.append([count, took[id(fed)], took[id(unfed)]])
    return rows


def measure_batch(trainer: Trainer, steps: int, progress: Progress = silent) -> dict[str, Any]:
    """Whether a batch size trains, and how fast: a first step, one that settles, then a block of `steps`.

    Returns:
        The measurements of one try of results.schema.json's max_batch.
    """
    stepper = Stepper(trainer.step, trainer.backend.synchronize, trainer.spec.measuring, trainer.clock)
    first = stepper.block(1)
    progress(0.5, "first step done")
    stepper.block(1)
    block = stepper.block(steps)
    return {"first_step_seconds": first.seconds, "window_blocks": as_rows([block])}


def _sampled(step: Callable[[], Any], samples: int, seconds: float, clock: Clock, progress: Progress) -> list[float]:
    """Times of single calls of a `step` that waits for its own end, until both bounds are met."""
    times: list[float] = []
    total = 0.0
    while len(times) < samples or total < seconds:
        start = clock()
        step()
        times.append(round(clock() - start, 9))  # clocks tell nanoseconds; what a float adds doubles a result's size
        total += times[-1]
        progress(min(1.0, len(times) / samples, total / seconds), f"{total / len(times) * 1e3:.4g} ms")
    return times


def measure_latency(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent
) -> dict[str, Any]:
    """Batch 1, one image after the other: host to host, then from an image that is on the device already.

    Args:
        images: uint8 [N,S,S,3]; taken in turn, so that no input is seen twice in a row.

    Returns:
        The latency measurements of results.schema.json; every sample, in seconds and in order.
    """
    count = 0

    def host_to_host() -> None:
        nonlocal count
        chosen = count % len(images)
        count += 1
        backend.to_numpy(backend.infer(backend.to_device(images[chosen : chosen + 1], None)))

    resident = backend.to_device(images[:1], None)

    def on_device() -> None:
        backend.synchronize(backend.infer(resident))

    start = clock()
    host_to_host()
    first = clock() - start
    warmup = Stepper(host_to_host, lambda handle: None, spec.measuring, clock)
    blocks, steady = warmup.warm_up(profile.warmup_max_seconds, portion(progress, 0.0, 0.2))
    backend.reset_peak_memory()
    samples, seconds = profile.latency_samples, profile.latency_seconds
    return {
        "first_inference_seconds": first,
        "warmup_blocks": as_rows(blocks),
        "steady": steady,
        "host_to_host_seconds": _sampled(host_to_host, samples, seconds, clock, portion(progress, 0.2, 0.4)),
        "device_only_seconds": _sampled(on_device, samples, seconds, clock, portion(progress, 0.6, 0.4)),
    }


def _infer_batch(backend: Backend, batch: Batch, spec: Spec, profile: Profile, clock: Clock) -> dict[str, Any]:
    stepper = Stepper(lambda: backend.infer(batch), backend.synchronize, spec.measuring, clock)
    first = stepper.block(1)
    warmup, steady = stepper.warm_up(profile.inference_seconds)
    backend.reset_peak_memory()
    blocks = stepper.window(1, profile.inference_seconds, warmup[-1].step_seconds, silent)
    return {
        "first_inference_seconds": first.seconds,
        "steady": steady,
        "window_blocks": as_rows(blocks),
        "memory": backend.memory(),
    }


def measure_inference(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent
) -> dict[str, Any]:
    """Throughput for batch 1, 2, 4 ... on images that are on the device already, as far as memory and profile go.

    Returns:
        The inference measurements of results.schema.json.
    """
    sizes: list[dict[str, Any]] = []
    stopped = None
    batch_size = 1
    while batch_size <= profile.inference_max_batch:
        progress(math.log2(batch_size) / math.log2(2 * profile.inference_max_batch), f"batch {batch_size}")
        chosen = np.resize(images, (batch_size, *images.shape[1:]))
        try:
            measured = _infer_batch(backend, backend.to_device(chosen, None), spec, profile, clock)
        except OutOfMemory as error:
            stopped = f"batch {batch_size}: out of memory ({error})"
            break
        sizes.append({"batch_size": batch_size, **measured})
        batch_size *= 2
    return {"sizes": sizes, "stopped": stopped}


def measure_ceiling(
    backend: Backend, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent
) -> dict[str, Any]:
    """Rate of square matrix products of growing size: what this device can do at this precision.

    Returns:
        The ceiling measurements of results.schema.json: for each n, products of [n,n] x [n,n] and their time.
    """
    sizes: list[dict[str, Any]] = []
    spent, n = 0.0, 512
    while spent < profile.ceiling_seconds and n <= 16384:
        progress(min(1.0, spent / profile.ceiling_seconds), f"{n} x {n}")
        stepper = Stepper(lambda n=n: backend.matmul(n), backend.synchronize, spec.measuring, clock)  # type: ignore[misc]
        try:
            stepper.block(1)
            single = stepper.block(1)
            block = stepper.block(max(1, round(profile.ceiling_seconds / 8 / max(single.seconds, 1e-9))))
        except OutOfMemory:
            break
        sizes.append({"n": n, "blocks": as_rows([block])})
        spent += single.seconds + block.seconds  # not the first, in which a product is compiled
        n *= 2
    return {"sizes": sizes}


monotonic: Clock = time.perf_counter
"""The one clock: monotonic, nanosecond resolution."""
