"""What the parent process knows of this platform; imports no framework."""

import os
import sys
from ctypes.util import find_library

from shared_spec.backend import Platform
from shared_spec.environment import has_nvidia_driver, usable_cores


def _devices() -> tuple[str, ...]:
    """All device names, this system's best one first; the backend refuses those that are not there."""
    if sys.platform == "darwin":
        return ("gpu", "cpu", "cuda")
    return ("cuda", "cpu", "gpu") if has_nvidia_driver() else ("cpu", "cuda", "gpu")


def _openblas_env(ranks: int) -> dict[str, str]:
    """Put OpenBLAS, where it is installed, before the reference BLAS that MLX's Linux wheel brings along.

    On two cores a 2048 x 2048 product took 45 times longer with the reference BLAS.
    """
    preload = os.environ.get("LD_PRELOAD", "")
    if "libopenblas" not in preload:
        library = find_library("openblas")
        if library is None:
            return {}
        preload = f"{library} {preload}".strip()
    return {"LD_PRELOAD": preload, "OPENBLAS_NUM_THREADS": str(max(1, usable_cores() // ranks))}


def worker_env(device: str, engine: str, ranks: int = 1) -> dict[str, str]:
    """Environment of a phase process.

    TF32 is off at both precisions: bf16 products do not use it, and fp32 would not be fp32 with it.
    """
    env = {"MLX_ENABLE_TF32": "0"}
    return env | _openblas_env(ranks) if device == "cpu" and sys.platform == "linux" else env


PLATFORM = Platform(
    name="mlx",
    package="bench_mlx",
    folder="bench-mlx",
    make_target="mlx",
    backend="bench_mlx.backend:MlxBackend",
    devices=_devices(),
    engines=("mlx",),
    worker_env=worker_env,
)
