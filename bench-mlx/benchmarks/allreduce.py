"""Time of the gradients' exchange within a step, and of mlx.core.distributed's bare all-reduce.

.venv/bin/mlx.launch -n 2 -- .venv/bin/python benchmarks/allreduce.py
"""

import os
import sys
from collections.abc import Callable

import click
import mlx.core as mx

from bench_mlx.backend import MlxBackend
from bench_mlx.platform import PLATFORM, world
from shared_spec.dev import allreduce
from shared_spec.machine import topology
from shared_spec.workload.spec import load_spec


def all_reduce(values: int) -> Callable[[], None]:
    vector = mx.ones(values)
    mx.eval(vector)
    return lambda: mx.eval(mx.distributed.all_sum(vector))


@click.command()
@click.option("--device", type=click.Choice(PLATFORM.devices), default=PLATFORM.devices[0], show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--images", default=16, show_default=True, help="Batch of each rank.")
@click.option("--rounds", default=8, show_default=True, help="Pairs of steps with and without the exchange.")
def main(device: str, precision: str, images: int, rounds: int) -> None:
    if os.environ.get("DEIT_BENCH_WORKER") != "1":  # libraries read cores and settings when they are loaded
        topology.take_core_share(world().local_rank, world().local_size)
        env = {
            **os.environ,
            **PLATFORM.worker_env(device, "mlx", topology.threads(world().local_size)),
            "DEIT_BENCH_WORKER": "1",
        }
        os.execve(sys.executable, [sys.executable, *sys.argv], env)
    spec = load_spec()
    allreduce.report(lambda: MlxBackend(spec, device, precision, "mlx"), spec, all_reduce, images, rounds)


if __name__ == "__main__":
    main()
