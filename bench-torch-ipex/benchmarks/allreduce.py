"""Time of the gradients' exchange through DistributedDataParallel, and of torch.distributed's bare all-reduce.

.venv/bin/torchrun --standalone --nproc-per-node 2 benchmarks/allreduce.py
"""

import os
import sys
from collections.abc import Callable

import click
import torch
import torch.distributed as dist

from bench_torch_ipex.backend import TorchBackend
from bench_torch_ipex.platform import PLATFORM, world
from shared_spec.dev import allreduce
from shared_spec.machine import topology
from shared_spec.workload.spec import load_spec


def all_reduce(values: int) -> Callable[[], None]:
    vector = torch.ones(values)
    return lambda: dist.all_reduce(vector)


@click.command()
@click.option("--engine", type=click.Choice(PLATFORM.engines), default="stock", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--images", default=16, show_default=True, help="Batch of each rank.")
@click.option("--rounds", default=8, show_default=True, help="Pairs of steps with and without the exchange.")
def main(engine: str, precision: str, images: int, rounds: int) -> None:
    if os.environ.get("DEIT_BENCH_WORKER") != "1":  # libraries read cores and settings when they are loaded
        topology.take_core_share(world().local_rank, world().local_size)
        env = {
            **os.environ,
            **PLATFORM.worker_env("cpu", engine, topology.threads(world().local_size)),
            "DEIT_BENCH_WORKER": "1",
        }
        os.execve(sys.executable, [sys.executable, *sys.argv], env)
    spec = load_spec()
    allreduce.report(lambda: TorchBackend(spec, "cpu", precision, engine), spec, all_reduce, images, rounds)


if __name__ == "__main__":
    main()
