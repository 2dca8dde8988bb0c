"""The ranks of a run, connected by mlx.core.distributed: ring over TCP, MPI, or NCCL on CUDA."""

import socket
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np

from bench_mlx.platform import ranks_engine, world
from shared_spec.ranks import ALONE, Group, gathered_values

TRANSPORTS = {"ring": "tcp", "mpi": "mpi", "nccl": "nccl"}


class MlxGroup:
    """shared_spec.ranks.Group over MLX's; `mlx.launch` says who its ranks are.

    Attributes:
        ranks: MLX's own group, for its collectives.
    """

    def __init__(self) -> None:
        engine = ranks_engine()
        assert engine is not None  # without a launcher there is one rank
        self.engine = engine
        self.ranks = mx.distributed.init(strict=True, backend=self.engine)
        self.rank, self.size = self.ranks.rank(), self.ranks.size()
        self.hosts = world().hosts
        if self.engine == "nccl":  # its launcher does not say
            self.hosts = len(set(gathered_values(self, socket.gethostname())))

    def describe(self) -> dict[str, Any]:
        transport = TRANSPORTS[self.engine]
        return {"engine": f"mlx.core.distributed, {self.engine}", "transport": transport, "hosts": self.hosts}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        return on_host(mx.distributed.all_gather(mx.array(words)[None], group=self.ranks))


def on_host(value: mx.array) -> np.ndarray:
    """The value as a NumPy array; waits for it.

    Evaluated first: where a rank was lost, mx.eval raises, while NumPy's reading returned what had not arrived.
    """
    mx.eval(value)
    return np.array(value)


@cache
def group(device: str) -> Group:
    """The ranks that mlx.launch has started; the group of one process where it has not."""
    return MlxGroup() if world().size > 1 else ALONE
