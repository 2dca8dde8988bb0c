"""Checkpoints of a full training: weights, moments and record in one file, written by a thread while training goes on."""

import json
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel

from shared_spec import files
from shared_spec.measure.clock import Clock
from shared_spec.results.format import Ran
from shared_spec.results.measurements import Evaluation
from shared_spec.results.quantities import Energy, Span


class Record(BaseModel):
    """What has been measured so far; lives in the checkpoint, beside the weights it belongs to.

    Attributes:
        step: training steps done.
        seconds: the primary clock; the others up to host_wait_seconds are parts of it, but for the writing.
        checkpoint_write_seconds: what the thread took, this file's own writing left out.
        first_step_seconds: first step of each process, compilation included, added up; first_inference_seconds alike.
        losses: sampled training losses since the last evaluation; None where one was not finite.
        joules: energy so far; None once a meter could not tell.
        energy: what the meter has said, added up; the first time that it could not tell, why.
        windows: when the meter ran, by the time of day, one for each process; none where it does not tell.
        resumed: how often a new process went on from a checkpoint.
        memory: largest figures of any process so far, bytes.
        world_sizes: how many ranks trained: those of the first process, then of each that went on from a checkpoint.
        ran: when and where each process ran, the one under way as far as this checkpoint.
    """

    step: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    checkpoint_write_seconds: float = 0.0
    first_step_seconds: float = 0.0
    first_inference_seconds: float = 0.0
    host_wait_seconds: float = 0.0
    losses: list[float | None] = []
    loss_trace: list[float | None] = []
    evaluations: list[Evaluation] = []
    joules: float | None = 0.0
    energy: Energy | None = None
    windows: list[Span] = []
    resumed: int = 0
    memory: dict[str, int | None] = {}
    world_sizes: list[int] = []
    ran: list[Ran] = []


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Record]:
    """The state and record that a Writer has written."""
    with safetensors.safe_open(path, "np") as file:
        record = Record.model_validate(json.loads(file.metadata()["record"]))
        return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118  (no mapping)


class Writer:
    """Writes checkpoints, each atomically, one after the other, in a thread; close it when done.

    Whatever is killed when, the file holds the newest checkpoint that was written to its end.

    Attributes:
        seconds: what the thread has taken, up to the last `wait`.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock, self.seconds = path, clock, 0.0
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[float] | None = None

    def write(self, state: Mapping[str, np.ndarray], record: Record) -> None:
        """Start to write; `state` and `record` may change as soon as this returns."""
        self.wait()
        arrays = {name: np.array(value, order="C") for name, value in state.items()}
        metadata = {"record": json.dumps(record.model_dump())}
        self._under_way = self._thread.submit(self._write, arrays, metadata)

    def _write(self, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> float:
        start = self.clock()
        files.write_atomic(self.path, safetensors.numpy.save(arrays, metadata))
        return self.clock() - start

    def wait(self) -> None:
        """Return when nothing is being written any more."""
        pending, self._under_way = self._under_way, None
        if pending is None:
            return
        try:
            self.seconds += pending.result()
        except OSError as error:  # a full disk: the training goes on, and would be taken up again further back
            print(f"{self.path}: no checkpoint could be written ({error.strerror})", file=sys.stderr)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
