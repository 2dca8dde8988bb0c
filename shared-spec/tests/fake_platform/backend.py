"""A backend that costs nothing: its loss falls step by step, its logits count bright pixels.

FAKE_FAULT makes a phase process misbehave, as "WHAT:COUNT": the WHATth kind of trouble at the COUNTth call of
train_step. Kinds: oom, bug, kill (SIGKILL to itself), hang, part (parameters that are only this rank's). With several
ranks, which are processes that exchange files, it is rank FAKE_FAULT_RANK alone that misbehaves.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fake_mac
import numpy as np

from shared_spec.backend import OutOfMemory
from shared_spec.errors import UserError
from shared_spec.platform import Platform, Start
from shared_spec.ranks import ALONE, Group, World, gathered
from shared_spec.workload import params as canonical
from shared_spec.workload.spec import Spec


class FileGroup:
    """Ranks that exchange files in a folder."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.rank, self.size, self.turn = folder, world.rank, world.size, 0

    def describe(self) -> dict[str, Any]:
        return {"engine": "fake", "transport": "files", "hosts": 1}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        assert words.dtype == np.int32
        self.turn += 1
        paths = [self.folder / f"{self.turn}-{rank}" for rank in range(self.size)]
        paths[self.rank].with_suffix(".new").write_bytes(words.tobytes())
        paths[self.rank].with_suffix(".new").rename(paths[self.rank])
        while not all(path.exists() for path in paths):
            time.sleep(0.001)
        return np.stack([np.frombuffer(path.read_bytes(), np.int32) for path in paths])


def world() -> World:
    rank, size = int(os.environ.get("FAKE_RANK", 0)), int(os.environ.get("FAKE_SIZE", 1))
    return World(rank, size, rank, size, 1)


@cache
def group(device: str) -> Group:
    return FileGroup(Path(os.environ["FAKE_FOLDER"]), world()) if world().size > 1 else ALONE


def launch(ranks: int, device: str, words: list[str]) -> list[Start]:
    env = {"FAKE_FOLDER": tempfile.mkdtemp(prefix="fake-group"), "FAKE_SIZE": str(ranks)}
    return [Start([sys.executable, *words], {**env, "FAKE_RANK": str(rank)}) for rank in range(ranks)]


class FakeBackend:
    """Implements shared_spec.backend.Backend. `on_work(kind)` is called for each dispatch: a fake clock hooks in there."""

    def __init__(
        self, spec: Spec, device: str, precision: str, engine: str, on_work: Callable[[str], None] | None = None
    ) -> None:
        if device != ("gpu" if "FAKE_MAC" in os.environ else "cpu"):
            raise UserError(f"--device {device}: there is no such device here.")
        self.spec, self.precision, self.engine = spec, precision, engine
        self.group = group(device)
        self.on_work = on_work or (lambda kind: None)
        self.params: dict[str, np.ndarray] = {}
        self.steps = 0
        self.pending = 0
        self.largest_batch = 10**9

    def describe(self) -> dict[str, Any]:
        return {
            "framework": "fake",
            "framework_version": "1.0",
            "engine": self.engine,
            "device": {"kind": "cpu", "name": "fake device", "count": 1},
            "compile_mode": "none",
            "precision": {"requested": self.precision, "effective": self.precision},
            "details": {
                "threads": os.environ.get("FAKE_THREADS"),
                **({"recommended_working_set_bytes": int(11.84 * 2**30)} if "FAKE_MAC" in os.environ else {}),
            },
        }

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        canonical.check(self.spec, params, "load_params")
        self.params, self.steps = dict(params), 0

    def export_params(self) -> dict[str, np.ndarray]:
        return dict(self.params)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.params = {key[6:]: value for key, value in state.items() if key.startswith("param/")}
        self.steps = int(state["step"])

    def export_state(self) -> dict[str, np.ndarray]:
        return {f"param/{k}": v for k, v in self.params.items()} | {"step": np.array(self.steps, np.int64)}

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
        return images

    def train_step(self, batch: np.ndarray, lr: float) -> np.ndarray:
        self.steps += 1
        self._misbehave()
        self.on_work("train_step")
        self.activations = self._taken(len(batch))
        if "FAKE_MAC" in os.environ:
            fake_mac.allocate(len(batch))
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", 0)))
        self._learn(batch, lr)
        self.pending += 1
        return np.array([4.6 / self.steps, 1.0], np.float32)

    def _taken(self, batch_size: int) -> np.ndarray:
        """Memory, touched so that it is really there."""
        each, _, smallest = os.environ.get("FAKE_MEMORY", "0:0").partition(":")
        return np.ones(int(each) * batch_size if batch_size >= int(smallest) else 0, np.uint8)

    def _learn(self, batch: np.ndarray, lr: float) -> None:
        """Change the weights by what they are and by the global batch, so that a step left out or done twice shows.

        Sums of integers are exact, so that any number of ranks learns the same to the last bit.
        """
        if self.params:
            total, count = gathered(self.group, np.array([batch.sum(dtype=np.int64), batch.size], np.int64)).sum(0)
            bias = self.params["head.bias"]
            self.params["head.bias"] = (0.999 * bias + lr * float(total) / float(count)).astype(np.float32)

    def _misbehave(self) -> None:
        kind, _, when = os.environ.get("FAKE_FAULT", ":0").partition(":")
        if self.steps != int(when) or str(self.group.rank) not in os.environ.get("FAKE_FAULT_RANK", "0"):
            return
        if kind == "part":
            self.params["head.bias"] = self.params["head.bias"] + np.float32(1)
        if kind == "oom":
            raise OutOfMemory("fake memory is full")
        if kind == "bug":
            raise ValueError("fake bug in /home/somebody/secret/file.py")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(600)

    def infer(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) > self.largest_batch:
            raise OutOfMemory("too large")
        self.on_work("infer")
        self.pending += 1
        bright = (batch > 127).sum(axis=(1, 2, 3), dtype=np.float32)
        return np.tile(bright[:, None], (1, self.spec.model.classes))

    def gradients(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.zeros_like(value) for name, value in self.params.items()}

    def preprocess(self, batch: np.ndarray) -> np.ndarray:
        return batch.astype(np.float32)

    def synchronize(self, *handles: np.ndarray) -> None:
        self.on_work("synchronize")
        self.pending = 0

    def to_numpy(self, handle: np.ndarray) -> np.ndarray:
        self.on_work("to_numpy")
        return handle

    def matmul(self, n: int) -> np.ndarray:
        self.on_work(f"matmul {n}")
        return np.zeros(1)

    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)

    def reset_peak_memory(self) -> None:
        self.on_work("reset_peak_memory")

    def communication(self) -> dict[str, float] | None:
        return None if self.group is ALONE else {"seconds": 0.002, "overlapped_seconds": 0.001}

    def memory(self) -> dict[str, int | None]:
        return {"fake_peak": 1 << 20, "fake_unknown": None}


def cpu_info() -> dict[str, Any]:
    """What cpuinfo would say after more than a second."""
    return {"brand_raw": "fake processor", "flags": []}


PLATFORM = Platform(
    name="torch-ipex",
    package="fake_platform",
    folder="bench-fake",
    make_target="fake",
    backend="fake_platform.backend:FakeBackend",
    devices=("cpu", "cuda", "gpu"),
    engines=("fake",),
    worker_env=lambda device, engine, ranks: {"FAKE_THREADS": "2"},
    phase_env=lambda phase, device: {"FAKE_GRAPHS": "0"} if phase == "latency" else {},
    world=world,
    group="fake_platform.backend:group",
    launch=launch,
)
