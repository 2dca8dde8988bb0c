"""What the parent process knows of this platform; imports no framework."""

import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench_tf_cuda import kept
from shared_spec.errors import UserError
from shared_spec.machine.caches import cuda_driver
from shared_spec.machine.nvml import has_nvidia_driver
from shared_spec.platform import Platform, Start, Threads
from shared_spec.ranks import World


def _devices() -> tuple[str, ...]:
    """All device names, this system's default first; the backend refuses the one that is not there."""
    return ("cuda", "cpu") if has_nvidia_driver() else ("cpu", "cuda")


def worker_env(device: str, engine: str, threads: Threads) -> dict[str, str]:
    """Environment of a phase process. Of XLA's flags only the user's own and the folder of `kept.py` are set.

    TensorFlow's log is silenced, since what goes wrong also arrives as an exception. On the CPU, XLA hands products to
    oneDNN where TensorFlow is told to use it; GPUs are hidden, so that no memory is taken there; and there is one
    thread per core, shared by the ranks. On a GPU oneDNN would serve only operators that XLA replaces.
    """
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    if device == "cpu":
        env |= {"TF_ENABLE_ONEDNN_OPTS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        env |= {"TF_NUM_INTRAOP_THREADS": str(threads.count)}
    return env if device == "cpu" else env | kept.flags(world().local_rank)


CACHE_FLAGS = re.compile(r"--(?:xla_gpu_per_fusion_autotune_cache_dir|tf_xla_persistent_cache_directory)=(\S+)")


def program_caches(device: str, engine: str, env: Mapping[str, str]) -> list[Path]:
    """Where XLA keeps what it has tuned and compiled, as XLA's flags say, and the driver."""
    flags = f"{env.get('XLA_FLAGS', '')} {env.get('TF_XLA_FLAGS', '')}"
    folders = [Path(folder) for folder in CACHE_FLAGS.findall(flags)]
    return [*folders, *cuda_driver(env)] if device == "cuda" else folders


def _tf_config(ports: list[int], rank: int) -> str:
    """TF_CONFIG of one of several workers on this host alone."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})


def world() -> World:
    """This process's place among the workers of TF_CONFIG, the layout that tf.distribute reads.

    Workers under the same host name are taken to be on one host, and share its devices in order of their index.

    Raises:
        UserError: TF_CONFIG names no cluster of workers, or no place in it.
    """
    if not (text := os.environ.get("TF_CONFIG")):
        return World()
    try:
        config = json.loads(text)
        workers, rank = config["cluster"]["worker"], int(config["task"]["index"])
        hosts = [worker.rpartition(":")[0] for worker in workers]
        if len(config["cluster"]) != 1 or config["task"]["type"] != "worker" or not 0 <= rank < len(hosts):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"TF_CONFIG: {text!r} is no place among workers, and may be left over from another job: `unset TF_CONFIG` to "
            "run alone; to run with others give it as "
            f"{json.dumps({'cluster': {'worker': ['HOST:PORT', 'HOST:PORT']}, 'task': {'type': 'worker', 'index': 0}})}."
        ) from None
    return World(rank, len(hosts), hosts[:rank].count(hosts[rank]), hosts.count(hosts[rank]), len(set(hosts)))


def launch(ranks: int, device: str, words: list[str]) -> list[Start]:
    """`ranks` workers on this host, each on a port of the loopback interface that is free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(ranks)]
        ports = [bound.getsockname()[1] for bound in sockets]
    envs = [
        {"TF_CONFIG": _tf_config(ports, rank)} | (kept.flags(rank) if device == "cuda" else {}) for rank in range(ranks)
    ]
    return [Start([sys.executable, *words], env) for env in envs]


PLATFORM = Platform(
    name="tf-cuda",
    package="bench_tf_cuda",
    folder="bench-tf-cuda",
    make_target="cuda",
    backend="bench_tf_cuda.backend:TfBackend",
    devices=_devices(),
    engines=("xla",),
    worker_env=worker_env,
    world=world,
    group="bench_tf_cuda.ranks:group",
    launch=launch,
    launcher_env=("TF_CONFIG",),
    headline_memory=("tf_peak", "host_peak"),
    program_caches=program_caches,
    cuda=("12.9", "XLA compiles on one thread, so that first steps take minutes"),
    compile_seconds={"cuda": 30.0, "cpu": 12.0},
)
