"""Time of the gradients' exchange through MultiWorkerMirroredStrategy, and of the strategy's bare all-reduce.

.venv/bin/python benchmarks/allreduce.py [--help]    (starts two ranks on this machine)
"""

import os
import subprocess
import sys
from collections.abc import Callable

import click
import tensorflow as tf

from bench_tf_cuda.backend import TfBackend
from bench_tf_cuda.platform import PLATFORM, launch, world
from bench_tf_cuda.ranks import group
from shared_spec.dev import allreduce
from shared_spec.machine import topology
from shared_spec.workload.spec import load_spec

RANKS = 2


def rank(device: str, precision: str, images: int, rounds: int) -> None:
    topology.take_core_share(world().local_rank, world().local_size)
    ranks = group(device)

    def all_reduce(values: int) -> Callable[[], None]:
        call, vector = tf.function(ranks.sum, autograph=False), tf.ones(values)  # type: ignore[attr-defined]
        return lambda: call(vector)[0].numpy()  # noqa: PLW0108  (the call is what is timed)

    spec = load_spec()
    allreduce.report(lambda: TfBackend(spec, device, precision, "xla"), spec, all_reduce, images, rounds)


@click.command()
@click.option("--device", type=click.Choice(PLATFORM.devices), default=PLATFORM.devices[0], show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--images", default=16, show_default=True, help="Batch of each rank.")
@click.option("--rounds", default=8, show_default=True, help="Pairs of steps with and without the exchange.")
def main(device: str, precision: str, images: int, rounds: int) -> None:
    if world().size > 1:
        return rank(device, precision, images, rounds)
    env = {**os.environ, **PLATFORM.worker_env(device, "xla", topology.threads(RANKS))}
    children = [
        subprocess.Popen(start.arguments, env={**env, **start.env}) for start in launch(RANKS, device, sys.argv)
    ]
    return sys.exit(max(abs(child.wait()) for child in children))


if __name__ == "__main__":
    main()
