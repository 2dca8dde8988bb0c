"""The latency phase at batch 1, and the inference phase at batch 1, 2, 4 ..."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shared_spec.backend import Backend, Batch, Handle, OutOfMemory
from shared_spec.measure.clock import Clock
from shared_spec.measure.timed_calls import Observer, Reservoir, TimedCalls, unobserved
from shared_spec.measure.timing import Progress, Stepper, as_rows, portion, silent
from shared_spec.results.measurements import Inference, InferenceSize, Latency
from shared_spec.workload.spec import Profile, Spec

LEAST_SAMPLES = 10
"""Latencies that are taken though the time of the phase is over."""
RESIDENT_IMAGES = 16
"""Images that are put on the device together, before they are timed one by one."""


class _Images:
    """Single images in turn, uint8 [1,S,S,3], none of them ever seen twice: an answer that was kept helps nobody."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.count = images, 0

    def __call__(self) -> np.ndarray:
        turn, chosen = divmod(self.count, len(self.images))
        self.count += 1
        image: np.ndarray = self.images[chosen : chosen + 1].copy()
        image[0, 0, 0] ^= np.frombuffer(turn.to_bytes(4, "little"), np.uint8)[:3]  # one pixel tells the turn
        return image


def _sampled(
    prepare: Callable[[], tuple[np.ndarray, Any]], call: Callable[[Any], Any], samples: int, seconds: float,
    clock: Clock, deadline: float, progress: Progress,
) -> tuple[list[float], Reservoir]:  # fmt: skip
    """Times of single calls that wait for their own end, until both bounds are met or the time of the phase is over.

    `prepare` makes an image and what is called for it, `call` answers; the clock runs over the call alone.

    Returns:
        The times, and a handful of the calls.
    """
    times: list[float] = []
    total, seen = 0.0, Reservoir()
    while len(times) < samples or total < seconds:
        if len(times) >= LEAST_SAMPLES and clock() >= deadline:
            break
        image, asked = prepare()
        start = clock()
        answer = call(asked)
        times.append(clock() - start)
        total += times[-1]
        seen.offer((image, answer))
        progress(min(1.0, len(times) / samples, total / seconds), f"{total / len(times) * 1e3:.4g} ms")
    return times, seen


def measure_latency(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent,
    deadline: float = math.inf, observer: Observer = unobserved,
) -> Latency:  # fmt: skip
    """Batch 1, one image after the other: host to host, then from an image that is on the device already.

    Args:
        images: uint8 [N,S,S,3]; taken in turn.
        deadline: of the clock; after it nothing is measured more often than it must be.
        observer: is told what a handful of the timed calls answered, when all are over.

    Returns:
        Every sample, in order; without memory, which the process is asked for at its end.
    """
    fresh = _Images(images)

    def from_host() -> tuple[np.ndarray, np.ndarray]:
        image = fresh()
        return image, image

    def host_to_host(image: np.ndarray) -> np.ndarray:
        return backend.to_numpy(backend.infer(backend.to_device(image, None)))

    def resident() -> Iterator[tuple[np.ndarray, Batch]]:
        while True:
            images = [fresh() for _ in range(RESIDENT_IMAGES)]
            there = [backend.to_device(image, None) for image in images]
            backend.synchronize()
            yield from zip(images, there, strict=True)

    def on_device(batch: Batch) -> Handle:
        handle = backend.infer(batch)
        backend.synchronize(handle)
        return handle

    start = clock()
    host_to_host(fresh())
    first = clock() - start
    warmup = Stepper(lambda: host_to_host(fresh()), lambda handle: None, spec.measuring, clock, deadline=deadline)
    blocks, steady = warmup.warm_up(profile.warmup_max_seconds, portion(progress, 0.0, 0.2))
    backend.reset_peak_memory()
    bounds = (profile.latency_samples, profile.latency_seconds, clock, deadline)
    round_trips, answered = _sampled(from_host, host_to_host, *bounds, portion(progress, 0.2, 0.4))
    device_only, answered_there = _sampled(resident().__next__, on_device, *bounds, portion(progress, 0.6, 0.4))
    images_asked, logits = zip(*answered.kept, strict=True)
    observer(TimedCalls("host to host", np.concatenate(images_asked), np.concatenate(logits)))
    images_asked, handles = zip(*answered_there.kept, strict=True)
    logits = tuple(backend.to_numpy(handle) for handle in handles)
    observer(TimedCalls("device only", np.concatenate(images_asked), np.concatenate(logits)))
    return Latency(
        first_inference_seconds=first,
        warmup_blocks=as_rows(blocks),
        steady=steady,
        host_to_host_seconds=tuple(round_trips),
        device_only_seconds=tuple(device_only),
        memory={},
        checks=None,
        unchecked=None,
    )


RESIDENT = 4
"""Batches on the device that inference goes round, so that none is seen twice in a row."""
LOOKED_AT = 2
"""Of these, how many have their answers checked, drawn when all is timed: checking takes longer than timing."""


def _infer_batch(
    backend: Backend, images: np.ndarray, size: int, spec: Spec, profile: Profile, clock: Clock, deadline: float
) -> tuple[InferenceSize, list[TimedCalls]]:
    """Throughput at one batch size, and what the last calls of its window answered."""
    asked = [np.take(images, range(i * size, (i + 1) * size), 0, mode="wrap") for i in range(RESIDENT)]
    resident = [backend.to_device(batch, None) for batch in asked]
    answers: dict[int, Handle] = {}
    turn = 0

    def infer() -> Handle:
        nonlocal turn
        turn = (turn + 1) % RESIDENT
        answers[turn] = backend.infer(resident[turn])
        return answers[turn]

    stepper = Stepper(infer, backend.synchronize, spec.measuring, clock, deadline=deadline)
    first = stepper.block(1)
    warmup, steady = stepper.warm_up(profile.inference_seconds)
    backend.reset_peak_memory()
    blocks = stepper.window(1, profile.inference_seconds, warmup[-1].step_seconds, silent)
    measured = InferenceSize(
        batch_size=size,
        first_inference_seconds=first.seconds,
        steady=steady,
        window_blocks=as_rows(blocks),
        memory=backend.memory(),
    )
    looked_at = random.sample(sorted(answers), min(LOOKED_AT, len(answers)))
    return measured, [TimedCalls(f"batch {size}", asked[i], backend.to_numpy(answers[i])) for i in looked_at]


def measure_inference(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent,
    deadline: float = math.inf, observer: Observer = unobserved,
) -> Inference:  # fmt: skip
    """Throughput for batch 1, 2, 4 ... on images that are on the device already, as far as memory and profile go.

    Args:
        observer: is told, for each size, what the last calls of its window answered.

    Returns:
        Every size; without the memory of the whole, which the process is asked for at its end.
    """
    sizes: list[InferenceSize] = []
    stopped = None
    batch_size = 1
    while batch_size <= profile.inference_max_batch:
        if sizes and clock() >= deadline:
            stopped = f"batch {batch_size}: the time for this phase was over"
            break
        progress(math.log2(batch_size) / math.log2(2 * profile.inference_max_batch), f"batch {batch_size}")
        try:
            measured, seen = _infer_batch(backend, images, batch_size, spec, profile, clock, deadline)
        except OutOfMemory as error:
            stopped = f"batch {batch_size}: out of memory ({error})"
            break
        sizes.append(measured)
        for one in seen:
            observer(one)
        batch_size *= 2
    return Inference(sizes=tuple(sizes), stopped=stopped, memory={}, checks=None, unchecked=None)
