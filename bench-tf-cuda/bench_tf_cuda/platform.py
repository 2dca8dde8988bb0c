"""What the parent process knows of this platform; imports no framework."""

from shared_spec.backend import Platform
from shared_spec.environment import has_nvidia_driver, usable_cores


def devices() -> tuple[str, ...]:
    """All device names, this system's default first; the backend refuses the one that is not there."""
    return ("cuda", "cpu") if has_nvidia_driver() else ("cpu", "cuda")


def worker_env(device: str, engine: str, ranks: int = 1) -> dict[str, str]:
    """Environment of a phase process. XLA_FLAGS stays as the user has it: XLA's own defaults are what is measured.

    TensorFlow's log is silenced, since what goes wrong also arrives as an exception; oneDNN serves only operators that
    XLA replaces. On the CPU, GPUs are hidden, so that no memory is taken there, and there is one thread per core,
    shared by the ranks.
    """
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    if device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": str(max(1, usable_cores() // ranks))}
    return env


PLATFORM = Platform(
    name="tf-cuda",
    package="bench_tf_cuda",
    folder="bench-tf-cuda",
    make_target="cuda",
    backend="bench_tf_cuda.backend:TfBackend",
    devices=devices(),
    engines=("xla",),
    worker_env=worker_env,
)
