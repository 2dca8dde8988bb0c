"""What a platform has to be able to do. The harness drives, the backend obeys; only the harness owns a clock."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from shared_spec.ranks import Group
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec

Batch = Any
"""A batch on the device: images, and targets where there are any. Only its backend looks inside."""
Handle = Any
"""A value on the device that may not have been computed yet."""


_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=False)


@contextmanager
def enable_grad() -> Iterator[None]:
    """Operators called in this block are to be differentiated: for frameworks that do not tell an operator themselves."""
    token = _grad_enabled.set(True)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


def grad_enabled() -> bool:
    """Whether this is inside of `enable_grad`."""
    return _grad_enabled.get()


class OutOfMemory(Exception):
    """The device or the system had no memory left for what was asked."""


class DeviceWatchdog(Exception):
    """The system stopped the device's work because it went on for too long; the text says what helps."""


class Backend(Protocol):
    """One framework on one device at one precision, holding one model and its optimiser.

    With several ranks each process has its own. What is handed to it is this rank's part of the global batch, and
    train_step alone speaks with the other ranks; they must all call it in step.

    Attributes:
        group: the ranks; ranks.ALONE where the launcher's environment names one rank.

    Precision "fp32" is strict: no TF32, no reduced-precision products. "bf16" computes matrix products and
    activations in bfloat16 and keeps parameters, moments, softmax statistics, normalisation statistics and
    loss in float32.

    Raises:
        UserError: from the constructor, where device, precision or engine cannot be had on this machine.
        OutOfMemory, DeviceWatchdog: from any call, where the framework reports it as an error.
    """

    group: Group

    def __init__(self, spec: Spec, device: str, precision: str, engine: str) -> None: ...

    def describe(self) -> dict[str, Any]:
        """What really runs, read back from the framework where it tells (results.schema.json: backend)."""
        ...

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        """Set the parameters (canonical names, float32) and start the optimiser afresh: zero moments, step 0."""
        ...

    def export_params(self) -> Params:
        """The parameters under canonical names, float32, on the host."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Set parameters, moments and step from export_state's arrays, exactly."""
        ...

    def export_state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on: "param/NAME", "m/NAME", "v/NAME" (float32) and "step" (int64 [])."""
        ...

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        """Start moving images uint8 [B,S,S,3] and targets float32 [B,classes] to the device."""
        ...

    def train_step(self, batch: Batch, lr: float) -> Handle:
        """Dispatch forward, backward, clip and AdamW; return float32 [2], not waited for.

        The two are the mean loss over the batch and the global L2 norm of the gradients before clipping, which
        scales them by min(1, clip_norm / (norm + 1e-6)) as torch.nn.utils.clip_grad_norm_ does. With several ranks
        the gradients are averaged over them first, so that loss, norm and clip are those of the global batch.
        """
        ...

    def infer(self, batch: Batch) -> Handle:
        """Dispatch the forward pass; return logits [B,classes], not waited for."""
        ...

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        """Unclipped gradients of the loss over this very batch by canonical name, float32, not averaged over ranks.

        Parameters and optimiser stay as they are.
        """
        ...

    def communication(self) -> dict[str, float] | None:
        """What the engine tells of its exchange of gradients, in seconds a training step; None where it does not.

        "seconds": from the first byte of a step's exchange to the last; "overlapped_seconds": the part of them in
        which the backward pass was still computing.
        """
        ...

    def preprocess(self, batch: Batch) -> Handle:
        """The model's input as the step computes it: normalised and upscaled [B,H,W,3], float32."""
        ...

    def synchronize(self, *handles: Handle) -> None:
        """Return when these handles, and all the work dispatched before them, are really done."""
        ...

    def to_numpy(self, handle: Handle) -> np.ndarray:
        """The value as float32 on the host; waits for it."""
        ...

    def matmul(self, n: int) -> Handle:
        """Dispatch one [n,n] x [n,n] product of fixed random operands at this precision; not waited for."""
        ...

    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The operands of `matmul`, float32 [n,n] each, as the device has them: the product is a @ b."""
        ...

    def reset_peak_memory(self) -> None: ...

    def memory(self) -> dict[str, int | None]:
        """Memory figures of the device by name, bytes; None where the framework does not tell."""
        ...
