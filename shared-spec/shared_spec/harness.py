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
from typing import Any

import numpy as np

from shared_spec import parallel, params
from shared_spec.backend import Backend, Batch, Handle, OutOfMemory
from shared_spec.batches import HostBatch
from shared_spec.energy import Meter
from shared_spec.parallel import ALONE, Group
from shared_spec.spec import MeasuringSpec, Profile, Spec

Clock = Callable[[], float]
Progress = Callable[[float, str], None]
"""Called with the part done (0 to 1) and a few words."""


def silent(done: float, text: str) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Block:
    """`steps` steps from the first dispatch to the end of the synchronisation behind the last, in seconds."""

    steps: int
    seconds: float

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
        self.synchronize(handle)
        return Block(steps, self.clock() - start)

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

    def window(self, min_steps: int, min_seconds: float, step_seconds: float, progress: Progress) -> list[Block]:
        """Blocks until both bounds are met; `step_seconds` is what the warm-up saw."""
        blocks: list[Block] = []
        steps, seconds = 0, 0.0

        def wanted() -> int:
            return self.block_size(step_seconds) if steps < min_steps or seconds < min_seconds else 0

        while count := parallel.decided(self.group, wanted()):
            blocks.append(self.block(count))
            steps, seconds = steps + blocks[-1].steps, seconds + blocks[-1].seconds
            progress(min(steps / min_steps, seconds / min_seconds), f"{seconds / steps * 1e3:.4g} ms a step")
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
        host_wait: seconds spent waiting for the host to have a batch ready.
    """

    backend: Backend
    spec: Spec
    batches: Iterator[HostBatch]
    batch_size: int
    clock: Clock
    step_number: int = 0
    host_wait: float = 0.0
    trace: list[Handle] = field(default_factory=list)

    def step(self) -> Handle:
        start = self.clock()
        host = next(self.batches)
        self.host_wait += self.clock() - start
        batch = self.backend.to_device(host.images, host.targets)
        handle = self.backend.train_step(batch, self.spec.learning_rate(self.step_number, self.batch_size))
        if len(self.trace) < self.spec.measuring.loss_trace_steps:
            self.trace.append(handle)
        self.step_number += 1
        return handle

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
        The training measurements of results.schema.json; times in seconds. With several ranks they are this rank's,
        and "parallel" has what all of them saw.

    Raises:
        RanksApart: the ranks' parameters differ at the end.
    """
    backend, clock = trainer.backend, trainer.clock
    stepper = Stepper(trainer.step, backend.synchronize, trainer.spec.measuring, clock, backend.group)
    progress(0.0, "first step (compiles)")
    first = stepper.block(1)
    warmup, steady = stepper.warm_up(profile.warmup_max_seconds, lambda done, text: progress(0.3 * done, text))
    backend.reset_peak_memory()
    wait_before = trainer.host_wait
    meter.start()
    window = stepper.window(
        profile.window_min_steps,
        profile.window_seconds,
        warmup[-1].step_seconds,
        lambda done, text: progress(0.3 + 0.5 * min(done, 1.0), text),
    )
    energy = meter.stop().as_dict()
    host_wait = trainer.host_wait - wait_before
    samples = []
    for i in range(profile.step_samples):
        samples.append(stepper.block(1).seconds)
        progress(0.8 + 0.2 * (i + 1) / profile.step_samples, "single steps")
    return {
        "parallel": _of_all_ranks(backend, window, samples),
        "batch_size": trainer.batch_size,
        "first_step_seconds": first.seconds,
        "warmup_blocks": as_rows(warmup),
        "steady": steady,
        "window_blocks": as_rows(window),
        "window_host_wait_seconds": host_wait,
        "energy": energy,
        "step_seconds": samples,
        "loss_trace": trainer.losses(),
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
        times.append(clock() - start)
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
    blocks, steady = warmup.warm_up(profile.warmup_max_seconds, lambda done, text: progress(0.2 * done, text))
    backend.reset_peak_memory()
    samples, seconds = profile.latency_samples, profile.latency_seconds
    return {
        "first_inference_seconds": first,
        "warmup_blocks": as_rows(blocks),
        "steady": steady,
        "host_to_host_seconds": _sampled(
            host_to_host, samples, seconds, clock, lambda done, text: progress(0.2 + 0.4 * done, text)
        ),
        "device_only_seconds": _sampled(
            on_device, samples, seconds, clock, lambda done, text: progress(0.6 + 0.4 * done, text)
        ),
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
            first = stepper.block(1)
            single = stepper.block(1)
            block = stepper.block(max(1, round(profile.ceiling_seconds / 8 / max(single.seconds, 1e-9))))
        except OutOfMemory:
            break
        sizes.append({"n": n, "blocks": as_rows([block])})
        spent += first.seconds + single.seconds + block.seconds
        n *= 2
    return {"sizes": sizes}


monotonic: Clock = time.perf_counter
"""The one clock: monotonic, nanosecond resolution."""
