"""What two ranks on this machine's CPU spend on exchanging gradients, beside the engine's bare all-reduce.

Run: python benchmarks/allreduce.py (about two minutes on two cores, a thread each)

The training step is the real one, fp32, at a few depths of the model, and so at a few sizes of the message. Its exchange
starts when a rank's own gradient is there, and so includes waiting for the slower rank; the shortest time over the ranks
is that of the one that nobody had to wait for. The bare all-reduce moves as many bytes, by the same strategy, in the
same processes, right after it.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import tensorflow as tf

from bench_tf_cuda import platform
from bench_tf_cuda.backend import TfBackend
from bench_tf_cuda.ranks import TfGroup
from shared_spec import parallel, params
from shared_spec.batches import TrainingBatches
from shared_spec.cifar100 import synthetic
from shared_spec.environment import take_core_share
from shared_spec.spec import Spec, load_spec

RANKS = 2
DEPTHS = (1, 3, 12)
BATCH_SIZE = 4  # of the global batch: small, as computing is not what is looked at
STEPS = 10


def training_steps(spec: Spec) -> tuple[TfBackend, list[float], np.ndarray]:
    """The backend, seconds of each step on this rank, and seconds of each step's exchange on each rank, [rank, step]."""
    backend = TfBackend(spec, "cpu", "fp32", "xla")
    backend.load_params(params.initial(spec))
    data = synthetic(spec)
    batches = TrainingBatches(spec, data.train_images, data.train_labels, BATCH_SIZE, 0, backend.group)
    seconds = []
    for step in range(1 + STEPS):
        host = batches.batch(step)
        batch = backend.to_device(host.images, host.targets)
        parallel.decided(backend.group, 0)  # the ranks begin together
        start = time.perf_counter()
        backend.synchronize(backend.train_step(batch, 1e-4))
        seconds.append(time.perf_counter() - start)
    exchanges = np.array(backend.exchange_seconds)
    return backend, seconds[1:], parallel.gathered(backend.group, exchanges)  # the first step compiles


def bare_all_reduce(group: TfGroup, count: int) -> list[float]:
    """Seconds of each all-reduce of `count` float32."""
    all_reduce = tf.function(group.sum, autograph=False)
    with tf.device("CPU:0"):
        value = tf.ones(count)
    seconds = []
    for _ in range(1 + STEPS):
        parallel.decided(group, 0)
        start = time.perf_counter()
        total = all_reduce(value)
        seconds.append(time.perf_counter() - start)
    assert total.numpy().tolist()[:1] == [group.size]
    return seconds[1:]


def in_ms(seconds: Sequence[float] | np.ndarray) -> str:
    """Median and range."""
    return f"{1e3 * median(seconds):.0f} ms ({1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f})"


def rank() -> None:
    place = platform.world()
    take_core_share(place.local_rank, place.local_size)
    standard = load_spec()
    for depth in DEPTHS:
        spec = dataclasses.replace(standard, model=dataclasses.replace(standard.model, depth=depth))
        count = params.count(spec) + 1  # the loss travels behind the gradient
        backend, steps, exchanges = training_steps(spec)
        bare = bare_all_reduce(backend.group, count)
        if place.rank == 0:
            print(
                f"depth {depth:2}, {4 * count / 1e6:5.1f} MB: step {in_ms(steps)}, its exchange {in_ms(exchanges.min(0))}, with "
                f"the wait for the other rank {in_ms(exchanges[0])}; bare all-reduce {in_ms(bare)}",
                flush=True,
            )


def main() -> None:
    if "TF_CONFIG" in os.environ:
        return rank()
    print(
        f"TensorFlow {tf.__version__}, {RANKS} ranks on loopback, {STEPS} steps; median (lowest to highest)", flush=True
    )
    env = {**os.environ, **platform.worker_env("cpu", "xla", RANKS)}
    starts = platform.launch(RANKS, "cpu", [__file__])
    children = [subprocess.Popen(start.arguments, env={**env, **start.env}) for start in starts]
    return sys.exit(max(abs(child.wait()) for child in children))


if __name__ == "__main__":
    main()
