"""The ranks of a run, connected by torch.distributed: gloo over TCP, or Intel's oneCCL where it is installed."""

import os
from datetime import timedelta
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bench_torch_ipex.platform import world
from shared_spec import ranks
from shared_spec.ranks import ALONE, Group


class TorchGroup:
    """shared_spec.ranks.Group over the default process group; `torchrun` says who its ranks are."""

    def __init__(self) -> None:
        self.rank, self.size = world().rank, world().size
        if find_spec("oneccl_bindings_for_pytorch"):
            import_module("oneccl_bindings_for_pytorch")  # makes "ccl" known to torch.distributed
            self.engine = "ccl"
        else:
            self.engine = "gloo"
        dist.init_process_group(self.engine, timeout=timedelta(seconds=ranks.timeout()))

    def describe(self) -> dict[str, Any]:
        transport = "tcp" if self.engine == "gloo" else os.environ.get("CCL_ATL_TRANSPORT", "mpi")
        return {"engine": f"torch.distributed, {self.engine}", "transport": transport, "hosts": world().hosts}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        mine = torch.from_numpy(words)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine)
        return torch.stack(rows).numpy()


@cache
def group(device: str) -> Group:
    """The ranks that torchrun has started; the group of one process where it has not."""
    return TorchGroup() if world().size > 1 else ALONE
