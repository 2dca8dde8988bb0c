"""The ranks of a run as tf.distribute connects them: one process a device, within a box as across several.

TensorFlow's other engine for one box, MirroredStrategy, drives all GPUs from one process. Here each GPU has its own, as
with the other two platforms, so that what is measured does not depend on where the next GPU is.
"""

import faulthandler
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakMethod

import numpy as np
import tensorflow as tf

from bench_tf_cuda.platform import world
from shared_spec import ranks
from shared_spec.errors import UserError
from shared_spec.ranks import ALONE, Group, World

HOST_GROUP = 1000
"""Key of the group in which host arrays are exchanged; the strategy numbers its own groups from 1."""


@contextmanager
def rank_errors() -> Iterator[None]:
    """Raise what TensorFlow reports of a lost rank as ConnectionError, in a sentence; also a decorator."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.DeadlineExceededError) as error:
        match = re.search(r"Collective (?:ops|has).*?(?=Additional GRPC|The error could|\[\[|$)", error.message, re.S)
        reason = " ".join((match.group() if match else error.message).split())
        raise ConnectionError(f"a rank is gone or hangs: {reason}") from error


@contextmanager
def _time_limit(seconds: float, size: int) -> Iterator[None]:
    """End this process if the block takes longer.

    TensorFlow waits for other workers with Python's lock in hand: no thread of Python could act, nor a handler of
    Ctrl-C. faulthandler's timer needs no lock.
    """
    print(
        f"Waiting for the {size} workers of TF_CONFIG, for {seconds:.0f} s at most: each has to be started, and to reach "
        "the addresses of the others.",
        file=sys.stderr,
    )
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(os.devnull, "w") as unread:
        faulthandler.dump_traceback_later(seconds, exit=True, file=unread)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGINT, on_interrupt)


class TfGroup:
    """shared_spec.ranks.Group over MultiWorkerMirroredStrategy, as TF_CONFIG lays it out.

    Args:
        on_gpu: gradients are on a GPU, and NCCL moves them; otherwise TensorFlow's ring does, over gRPC.
    """

    def __init__(self, place: World, on_gpu: bool) -> None:
        self.rank, self.size, self._hosts, self._on_gpu = place.rank, place.size, place.hosts, on_gpu
        self._exchanges = 0
        self._settles: list[WeakMethod[Callable[[], None]]] = []
        engines = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(
            timeout_seconds=ranks.timeout(), implementation=engines.NCCL if on_gpu else engines.RING
        )
        try:
            with _time_limit(ranks.timeout(), self.size):
                self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError(
                f"TF_CONFIG: worker {self.rank} cannot join the others ({str(error).splitlines()[0]}); give each its own "
                "index, and an address of this machine with a free port."
            ) from error

    def describe(self) -> dict[str, Any]:
        transport = "nccl" if self._on_gpu else "ring over gRPC"
        return {"engine": "tf.distribute", "transport": transport, "hosts": self._hosts}

    def settle_first(self, settle: Callable[[], None]) -> None:
        """Have `settle`, a method, called before words are exchanged, as long as its object lives.

        Steps that are still with a thread exchange gradients; on no rank may words come between them.
        """
        self._settles.append(WeakMethod(settle))

    @rank_errors()
    def all_gather(self, words: np.ndarray) -> np.ndarray:
        for settle in (reference() for reference in self._settles):
            if settle is not None:
                settle()
        self._exchanges += 1
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveGatherV2(
                input=tf.constant(words[None]),
                group_size=self.size,
                group_key=HOST_GROUP,
                instance_key=self._exchanges,
                ordering_token=[],
                communication_hint="ring",
                timeout_seconds=ranks.timeout(),
            ).numpy()

    def sum(self, value: tf.Tensor) -> tf.Tensor:
        """A tensor's sum over the ranks; for use while a tf.function is traced, outside of what XLA compiles."""

        def on_this_rank(mine: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # The strategy wants a tensor that knows its device, which a function's argument does not.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(mine))

        return self._strategy.run(on_this_rank, (value,))


@cache
def _connected(on_gpu: bool) -> Group:
    """This process's group; a process joins once, before TensorFlow has computed anything."""
    place = world()
    return TfGroup(place, on_gpu) if place.size > 1 else ALONE


def _why_no_gpu() -> str:
    """What TensorFlow misses, from the log that it writes in a process of its own: its level is fixed at import."""
    listing = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
    verbose = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    log = subprocess.run(
        [sys.executable, "-c", listing], env={**os.environ, **verbose}, capture_output=True, text=True, check=False
    ).stderr
    pattern = r"Could not load dynamic library '[^']+'|failed call to cuInit: .*|Could not find cuda drivers[^,\n]*"
    return "; ".join(dict.fromkeys(re.findall(pattern, log))) or "no reason in its log"


def select_device(device: str) -> str:
    """Show TensorFlow this device alone, and return TensorFlow's name for it.

    Of the GPUs it is the first, or with several ranks on this host the one in this rank's turn; its memory grows.

    Raises:
        UserError: there is no such device, or TensorFlow cannot use it.
    """
    if device not in ("cuda", "cpu"):
        raise UserError(f"--device {device}: this package runs on cuda or cpu.")
    gpus = tf.config.list_physical_devices("GPU") if device == "cuda" else []
    if device == "cuda" and not gpus:
        raise UserError(
            f"--device cuda: TensorFlow {tf.__version__} finds no usable GPU ({_why_no_gpu()}); "
            "install the NVIDIA driver and run `make setup-cuda`, or choose --device cpu."
        )
    place = world()
    if device == "cuda" and len(gpus) < place.local_size:
        raise UserError(
            f"{place.local_size} ranks on this host: TensorFlow finds {len(gpus)} GPUs, and each needs one."
        )
    mine = gpus[place.local_rank : place.local_rank + 1]
    tf.config.set_visible_devices(mine, "GPU")
    for gpu in mine:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "GPU:0" if gpus else "CPU:0"


def group(device: str) -> Group:
    """The workers of TF_CONFIG, connected, this process with its own device; the group of one process without it.

    Raises:
        UserError: there is no such device, or no way to the other ranks.
    """
    return _connected(on_gpu=select_device(device) != "CPU:0")
