"""What the parent process knows of this platform; imports no framework."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from ctypes.util import find_library
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared_spec.errors import UserError
from shared_spec.machine.caches import cuda_driver
from shared_spec.machine.nvml import has_nvidia_driver
from shared_spec.platform import Platform, Start, Threads
from shared_spec.ranks import World, place_of, stale


def _devices() -> tuple[str, ...]:
    """All device names, this system's best one first; the backend refuses those that are not there."""
    if sys.platform == "darwin":
        return ("gpu", "cpu", "cuda")
    return ("cuda", "cpu", "gpu") if has_nvidia_driver() else ("cpu", "cuda", "gpu")


def _openblas_env(threads: int) -> dict[str, str]:
    """Put OpenBLAS, where it is installed, before the slow reference BLAS that MLX's Linux wheel brings along."""
    preload = os.environ.get("LD_PRELOAD", "")
    if "libopenblas" not in preload:
        library = find_library("openblas")
        if library is None:
            return {}
        preload = f"{library} {preload}".strip()
    return {"LD_PRELOAD": preload, "OPENBLAS_NUM_THREADS": str(threads)}


def worker_env(device: str, engine: str, threads: Threads) -> dict[str, str]:
    """Environment of a phase process.

    TF32 is off at both precisions: bf16 products do not use it, and fp32 would not be fp32 with it.
    """
    env = {"MLX_ENABLE_TF32": "0"}
    return env | _openblas_env(threads.count) if device == "cpu" and sys.platform == "linux" else env


def phase_env(phase: str, device: str) -> dict[str, str]:
    """On CUDA a pass over one image is handed over kernel by kernel: to make a graph of it takes longer than it runs.

    On an H100 latency is 1.43 ms so, and 2.2 to 3.1 ms by way of graphs, which training is faster with.
    """
    graphs = os.environ.get("MLX_USE_CUDA_GRAPHS", "0")
    return {"MLX_USE_CUDA_GRAPHS": graphs} if device == "cuda" and phase == "latency" else {}


def emulates_bf16(device: str) -> bool:
    """MLX's CPU kernels for Linux compute bf16 in fp32 registers, whatever instructions the processor has."""
    return device == "cpu" and sys.platform == "linux"


def program_caches(device: str, engine: str, env: Mapping[str, str]) -> list[Path] | None:
    """Where kernels are kept that MLX has compiled; macOS keeps Metal's by itself, where is not told."""
    if device == "gpu":
        return None
    try:
        kept = Path(tempfile.gettempdir()) / "mlx" / version("mlx")
    except PackageNotFoundError:
        return None
    if device == "cpu":
        return [kept]
    return [Path(env["MLX_PTX_CACHE_DIR"]) if env.get("MLX_PTX_CACHE_DIR") else kept, *cuda_driver(env)]


def ranks_engine() -> str | None:
    """Which of MLX's distributed backends the launcher's environment is for; None outside a launcher."""
    marks = {"ring": "MLX_HOSTFILE", "nccl": "NCCL_HOST_IP", "mpi": "OMPI_COMM_WORLD_SIZE"}
    return next((engine for engine, mark in marks.items() if os.environ.get(mark)), None)


OPEN_MPI = tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))
LAUNCHER_ENV = ("MLX_HOSTFILE", "NCCL_HOST_IP", "MLX_RANK", "MLX_WORLD_SIZE", *OPEN_MPI)


def _addresses(hostfile: str) -> list[str]:
    """Address of each rank, as MLX's ring has them in a file.

    Raises:
        UserError: it is gone, or something else.
    """
    try:
        addresses = [rank[0].rpartition(":")[0] for rank in json.loads(Path(hostfile).read_text())]
        if not addresses:
            raise ValueError
        return addresses
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no list of addresses"
        raise UserError(f"{stale(('MLX_HOSTFILE', 'MLX_RANK'))} {hostfile} cannot be read: {reason}.") from None


def world() -> World:
    """This process's place among the ranks that mlx.launch has started."""
    engine, env = ranks_engine(), os.environ
    if engine == "mpi":
        rank, size, local_rank, local_size = place_of(OPEN_MPI, env)
        return World(rank, size, local_rank, local_size, -(-size // local_size))
    if engine == "nccl":  # the launcher shows each rank its GPU, and does not tell which hosts there are
        return World(*place_of(("MLX_RANK", "MLX_WORLD_SIZE"), env))
    if engine == "ring":
        addresses = _addresses(env["MLX_HOSTFILE"])
        rank, _ = place_of(("MLX_RANK", "MLX_WORLD_SIZE"), {"MLX_WORLD_SIZE": str(len(addresses)), **env})
        mine = [other for other, address in enumerate(addresses) if address == addresses[rank]]
        return World(rank, len(addresses), mine.index(rank), len(mine), len(set(addresses)))
    return World()


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that are free."""
    while True:
        with ExitStack() as held:
            first = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for port in range(first + 1, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                continue
            return int(first)


def launch(ranks: int, device: str, words: list[str]) -> list[Start]:
    """mlx.launch, as the one thing to start for that many ranks of this host."""
    mlx_launch = [str(Path(sys.executable).with_name("mlx.launch")), "-n", str(ranks)]
    connected = ["--backend", "nccl"] if device == "cuda" else ["--backend", "ring", "-p", str(_free_ports(ranks))]
    return [Start([*mlx_launch, *connected, "--", sys.executable, *words], {})]


PLATFORM = Platform(
    name="mlx",
    package="bench_mlx",
    folder="bench-mlx",
    make_target="mlx",
    backend="bench_mlx.backend:MlxBackend",
    devices=_devices(),
    engines=("mlx",),
    worker_env=worker_env,
    phase_env=phase_env,
    world=world,
    group="bench_mlx.ranks:group",
    launch=launch,
    headline_memory=("mlx_peak", "host_peak"),
    launcher_env=LAUNCHER_ENV,
    program_caches=program_caches,
    emulates_bf16=emulates_bf16,
    cuda=("13.0", "MLX's CUDA build does not start"),
    death=r"Node with rank (?P<rank>\d+) exited with code (?P<status>-?\d+)",
)
