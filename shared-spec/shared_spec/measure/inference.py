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
) -> Latency:
    """Batch 1, one image after the other: host to host, then from an image that is on the device already.

    Args:
        images: uint8 [N,S,S,3]; taken in turn, so that no input is seen twice in a row.

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
    warmup = Stepper(host_to_host, lambda handle: None, spec.measuring, clock)
    blocks, steady = warmup.warm_up(profile.warmup_max_seconds, portion(progress, 0.0, 0.2))
    backend.reset_peak_memory()
    samples, seconds = profile.latency_samples, profile.latency_seconds
    return Latency(
        first_inference_seconds=first,
        warmup_blocks=as_rows(blocks),
        steady=steady,
        host_to_host_seconds=tuple(_sampled(host_to_host, samples, seconds, clock, portion(progress, 0.2, 0.4))),
        device_only_seconds=tuple(_sampled(on_device, samples, seconds, clock, portion(progress, 0.6, 0.4))),
        memory={},
    )


def _infer_batch(backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock) -> InferenceSize:
    batch = backend.to_device(images, None)
    stepper = Stepper(lambda: backend.infer(batch), backend.synchronize, spec.measuring, clock)
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
    backend: Backend, images: np.ndarray, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent
) -> Inference:
    """Throughput for batch 1, 2, 4 ... on images that are on the device already, as far as memory and profile go.

    Returns:
        Every size; without the memory of the whole, which the process is asked for at its end.
    """
    sizes: list[InferenceSize] = []
    stopped = None
    batch_size = 1
    while batch_size <= profile.inference_max_batch:
        progress(math.log2(batch_size) / math.log2(2 * profile.inference_max_batch), f"batch {batch_size}")
        chosen = np.resize(images, (batch_size, *images.shape[1:]))
        try:
            sizes.append(_infer_batch(backend, chosen, spec, profile, clock))
        except OutOfMemory as error:
            stopped = f"batch {batch_size}: out of memory ({error})"
            break
        batch_size *= 2
    return Inference(sizes=tuple(sizes), stopped=stopped, memory={})
