"""The latency phase at batch 1, and the inference phase at batch 1, 2, 4 ..."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shared_spec.backend import Backend, OutOfMemory
from shared_spec.measure.blocks import Progress, Stepper, as_rows, portion, silent
from shared_spec.measure.clock import Clock
from shared_spec.results.measurements import Inference, InferenceSize, Latency
from shared_spec.workload.spec import Profile, Spec

LEAST_SAMPLES = 10
"""Latencies that are taken though the time of the phase is over."""


def _sampled(
    step: Callable[[], Any], samples: int, seconds: float, clock: Clock, progress: Progress, deadline: float
) -> list[float]:
    """Times of single calls of a `step` that waits for its own end, until both bounds are met or its time is over."""
    times: list[float] = []
    total = 0.0
    while len(times) < samples or total < seconds:
        if len(times) >= LEAST_SAMPLES and clock() >= deadline:
            break
        start = clock()
        step()
        times.append(clock() - start)
        total += times[-1]
        progress(min(1.0, len(times) / samples, total / seconds), f"{total / len(times) * 1e3:.4g} ms")
    return times


def measure_latency(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent,
    deadline: float = math.inf,
) -> Latency:  # fmt: skip
    """Batch 1, one image after the other: host to host, then from an image that is on the device already.

    Args:
        images: uint8 [N,S,S,3]; taken in turn, so that no input is seen twice in a row.
        deadline: of the clock; after it nothing is measured more often than it must be.

    Returns:
        Every sample, in order; without memory, which the process is asked for at its end.
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
    warmup = Stepper(host_to_host, lambda handle: None, spec.measuring, clock, deadline=deadline)
    blocks, steady = warmup.warm_up(profile.warmup_max_seconds, portion(progress, 0.0, 0.2))
    backend.reset_peak_memory()
    samples, seconds = profile.latency_samples, profile.latency_seconds
    return Latency(
        first_inference_seconds=first,
        warmup_blocks=as_rows(blocks),
        steady=steady,
        host_to_host_seconds=tuple(
            _sampled(host_to_host, samples, seconds, clock, portion(progress, 0.2, 0.4), deadline)
        ),
        device_only_seconds=tuple(_sampled(on_device, samples, seconds, clock, portion(progress, 0.6, 0.4), deadline)),
        memory={},
    )


def _infer_batch(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, deadline: float
) -> InferenceSize:
    batch = backend.to_device(images, None)
    stepper = Stepper(lambda: backend.infer(batch), backend.synchronize, spec.measuring, clock, deadline=deadline)
    first = stepper.block(1)
    warmup, steady = stepper.warm_up(profile.inference_seconds)
    backend.reset_peak_memory()
    blocks = stepper.window(1, profile.inference_seconds, warmup[-1].step_seconds, silent)
    return InferenceSize(
        batch_size=len(images),
        first_inference_seconds=first.seconds,
        steady=steady,
        window_blocks=as_rows(blocks),
        memory=backend.memory(),
    )


def measure_inference(
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent,
    deadline: float = math.inf,
) -> Inference:  # fmt: skip
    """Throughput for batch 1, 2, 4 ... on images that are on the device already, as far as memory and profile go.

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
        chosen = np.resize(images, (batch_size, *images.shape[1:]))
        try:
            sizes.append(_infer_batch(backend, chosen, spec, profile, clock, deadline))
        except OutOfMemory as error:
            stopped = f"batch {batch_size}: out of memory ({error})"
            break
        batch_size *= 2
    return Inference(sizes=tuple(sizes), stopped=stopped, memory={})
