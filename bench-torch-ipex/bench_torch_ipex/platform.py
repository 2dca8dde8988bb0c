"""What the parent process knows of this platform; imports no framework."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from shared_spec.platform import Platform, Start, Threads
from shared_spec.ranks import World, place_of


def _has_ipex() -> bool:
    """Whether intel-extension-for-pytorch is published for this system."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _places(threads: Threads) -> str:
    """The places as OpenMP writes them: "{0,1},{2,3}"."""
    if threads.places is None:
        return "cores"
    return ",".join(f"{{{','.join(map(str, place))}}}" for place in threads.places)


def worker_env(device: str, engine: str, threads: Threads) -> dict[str, str]:
    """Environment of a phase process: bound threads, each in a place of its own, and an allocator that keeps its memory.

    Ranks have their share of the cores as their affinity, within which OpenMP finds the places by itself.
    glibc gives blocks over 128 KiB back to the system at every free, so that each training step would fault all
    its activations in again. The thresholds keep freed blocks in the process.
    """
    env = {"OMP_NUM_THREADS": str(threads.count), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if sys.platform == "linux":
        env |= {
            "OMP_PLACES": _places(threads),
            "OMP_PROC_BIND": "close",
            "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
            "MALLOC_TOP_PAD_": str(128 << 20),
        }
    return env


def program_caches(device: str, engine: str, env: Mapping[str, str]) -> list[Path]:
    """None: TorchScript and oneDNN compile anew in each process."""
    return []


TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")


def world() -> World:
    """This process's place among the ranks that torchrun has started."""
    if not all(name in os.environ for name in TORCHRUN):
        return World()
    return World(*place_of(TORCHRUN, os.environ))


def launch(ranks: int, device: str, words: list[str]) -> list[Start]:
    """torchrun, as the one thing to start for that many ranks of this host."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [Start([*torchrun, *words], {})]


PLATFORM = Platform(
    name="torch-ipex",
    package="bench_torch_ipex",
    folder="bench-torch-ipex",
    make_target="ipex",
    backend="bench_torch_ipex.backend:TorchBackend",
    devices=("cpu",),
    engines=("ipex", "stock") if _has_ipex() else ("stock",),
    worker_env=worker_env,
    world=world,
    group="bench_torch_ipex.ranks:group",
    launch=launch,
    program_caches=program_caches,
    headline_memory=("host_peak",),
    launcher_env=(*TORCHRUN, "MASTER_ADDR", "MASTER_PORT"),
    death=r"rank +: (?P<rank>\d+) \(local_rank: \d+\)\n +exitcode +: (?P<status>-?\d+)",
)
