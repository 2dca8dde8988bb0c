"""Backend for MLX: Metal ("gpu"), CUDA ("cuda") and the CPU, with one compiled training step."""

import math
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cpuinfo
import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_unflatten

from bench_mlx.model import DeiT
from bench_mlx.ops import attention_backward, join
from bench_mlx.ranks import MlxGroup, group, on_host
from shared_spec import places
from shared_spec.backend import DeviceWatchdog, OutOfMemory, enable_grad
from shared_spec.conformance.probes import BATCH
from shared_spec.errors import UserError
from shared_spec.ranks import Group
from shared_spec.workload import params as canonical
from shared_spec.workload.spec import Spec

Batch = tuple[mx.array, ...]
"""Images, and targets where there are any."""
Arrays = dict[str, mx.array]

WORKING_SET = "recommended_working_set_bytes"
"""Detail by which the search for the largest batch knows what macOS wants the GPU to take (run/max_batch.py)."""

IN_FLIGHT = 2
"""Results under way at a time: one is computed while the next is queued, so that the device never waits for Python.
More would gain nothing, and each holds the memory of its batch and activations."""

STATE_KINDS = ("param", "m", "v")

NORM_PIECE = 4096
"""About the square root of the number of parameters: neither the pieces nor their sum adds up too many terms."""

KERNEL_BYTES = 64 << 20
"""Room for compiled kernels: those of a training step take a few MiB."""

OUT_OF_MEMORY = (
    "Unable to allocate",  # MLX's allocators
    "Attempting to allocate",  # Metal, more than its largest buffer
    "Insufficient Memory",  # Metal, while a command buffer runs
    "out of memory",  # CUDA
)


def keep_kernels_apart(device: str) -> None:
    """Have MLX keep the kernels that it compiles in a folder of this user and this version of MLX alone.

    Its own is the same for all users of a machine: the second cannot write there, and fails with a file missing.

    Raises:
        UserError: no folder can hold them; the text names TMPDIR.
    """
    if sys.platform == "linux":  # Metal has its own cache
        version = mx.__version__  # type: ignore[attr-defined]  # its stubs leave it out
        folder = places.temporary(f"mlx-{version}-{device}", run_from=True, needed=KERNEL_BYTES)
        os.environ["TMPDIR"] = str(folder)


def _select_device(device: str) -> None:
    """Make `device` MLX's default.

    Raises:
        UserError: this build of MLX, or this machine, does not have it.
    """
    if device == "gpu" and not mx.metal.is_available():
        raise UserError("--device gpu: MLX finds no Metal GPU here; choose --device cpu, or cuda on an NVIDIA machine.")
    if device == "cuda" and not (mx.cuda.is_available() and mx.device_count(mx.gpu)):
        raise UserError(
            "--device cuda: MLX finds no CUDA GPU; it takes Linux, an NVIDIA driver and MLX's CUDA build "
            "(pip install './bench-mlx[cuda]'), otherwise choose another --device."
        )
    mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)


WATCHDOG = ("Impacting Interactivity", "GPU Timeout", "CallbackErrorTimeout")
"""Metal, of a command buffer that macOS has stopped."""
WATCHDOG_HELP = (
    "macOS stopped the GPU's work because it went on for too long while the display needed the GPU; measure with the "
    "display asleep or over ssh, close what draws, and with --max-batch keep batches smaller"
)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise what MLX reports of exhausted memory, or of work that was stopped, as what it is; also a decorator."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if any(text in str(error) for text in OUT_OF_MEMORY):
            raise OutOfMemory(str(error)) from error
        if any(text in str(error) for text in WATCHDOG):
            raise DeviceWatchdog(f"{WATCHDOG_HELP} ({error})") from error
        raise


class MlxBackend:
    """shared_spec.backend.Backend for MLX.

    All that a training step changes is in `_state`: parameters and both moments as one float32 vector each, and the
    step. `_model` lends its structure only and takes the values of whatever is being computed. One vector instead of
    152 arrays makes the cast to bfloat16, the norm and AdamW a kernel each, which the host has to dispatch.
    """

    group: Group

    def __init__(self, spec: Spec, device: str, precision: str, engine: str) -> None:
        _select_device(device)
        keep_kernels_apart(device)
        self.spec, self.device, self.precision, self.engine = spec, device, precision, engine
        self.group = group(device)
        self._working_set = _fence(device)
        self._dtype = mx.bfloat16 if precision == "bf16" else mx.float32
        self._model = DeiT(spec)
        self._layout = canonical.FlatLayout(spec)
        self._state: Arrays = {}
        self._inference_params: Arrays = {}
        self._compiled_step: Callable[..., mx.array] = mx.compile(self._step, inputs=self._state, outputs=self._state)
        self._compiled_gradients = mx.compile(mx.value_and_grad(self._loss))
        self._compiled_forward = mx.compile(self._forward)
        self._in_flight: deque[mx.array] = deque()
        self._matmul_operands: dict[int, tuple[mx.array, mx.array]] = {}

    def describe(self) -> dict[str, Any]:
        on_cpu = self.device == "cpu"
        info = mx.device_info()
        name = cpuinfo.get_cpu_info().get("brand_raw", "unknown") if on_cpu else info["device_name"]
        fused = not on_cpu or shutil.which("g++") is not None
        return {
            "framework": "mlx",
            "framework_version": mx.__version__,  # type: ignore[attr-defined]  # its stubs leave it out
            "engine": self.engine,
            "device": {"kind": self.device, "name": name, "count": 1},
            "compile_mode": "mx.compile" if fused else "mx.compile, nothing fused: it found no g++",
            "precision": {"requested": self.precision, "effective": self._effective_precision()},
            "details": {
                "architecture": info.get("architecture"),
                "device_memory_bytes": info.get("total_memory", info.get("memory_size")),
                WORKING_SET: self._working_set,
                "own_kernels": self.device == "cuda",
                "attention_backward": self._attention_backward(),
                "cache_limit_bytes": _cache_limit(),
                "steps_in_flight": IN_FLIGHT,
                "openblas": _openblas_loaded() if on_cpu else None,
            },
        }

    @_memory_errors()
    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        canonical.check(self.spec, params, "load_params")
        zeros = mx.zeros(sum(self._layout.sizes))  # takes no memory before the first step
        self._set_state({"param": mx.array(self._layout.flatten(params)), "m": zeros, "v": zeros}, 0)

    def export_params(self) -> canonical.Params:
        return self._layout.by_name(on_host(self._state["param"]))

    @_memory_errors()
    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        values = {
            kind: {key.removeprefix(f"{kind}/"): state[key] for key in state if key.startswith(f"{kind}/")}
            for kind in STATE_KINDS
        }
        for kind in STATE_KINDS:
            canonical.check(self.spec, values[kind], f"load_state, {kind}")
        vectors = {kind: mx.array(self._layout.flatten(values[kind])) for kind in STATE_KINDS}
        self._set_state(vectors, int(state["step"]))

    def export_state(self) -> dict[str, np.ndarray]:
        state = {"step": np.array(self._state["step"], np.int64)}
        for kind in STATE_KINDS:
            by_name = self._layout.by_name(on_host(self._state[kind]))
            state |= {f"{kind}/{name}": value for name, value in by_name.items()}
        return state

    @_memory_errors()
    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return (mx.array(images),) if targets is None else (mx.array(images), mx.array(targets))

    @_memory_errors()
    def train_step(self, batch: Batch, lr: float) -> mx.array:
        self._inference_params.clear()
        # A new number would be a new compilation, a new array is not.
        return self._dispatch(self._compiled_step(*batch, mx.array(lr, mx.float32)), self._state)

    @_memory_errors()
    def infer(self, batch: Batch) -> mx.array:
        if not self._inference_params:  # cast once, for as long as the parameters stay as they are
            self._inference_params.update(self._weights())
        return self._dispatch(self._compiled_forward(self._inference_params, batch[0]))

    @_memory_errors()
    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        _, gradients = self._compiled_gradients(self._weights(), *batch)
        return {name: self._to_float32(value) for name, value in gradients.items()}

    def communication(self) -> dict[str, float] | None:
        """MLX does not tell."""
        return None

    def preprocess(self, batch: Batch) -> mx.array:
        return self._model.preprocess(batch[0]).transpose(0, 2, 3, 1)

    @_memory_errors()
    def synchronize(self, *handles: mx.array) -> None:
        """Evaluate the handles, then wait: mx.synchronize alone returns at once over what nobody dispatched."""
        mx.eval(*handles)
        mx.synchronize()
        self._in_flight.clear()

    @_memory_errors()
    def to_numpy(self, handle: mx.array) -> np.ndarray:
        return self._to_float32(handle)

    @_memory_errors()
    def matmul(self, n: int) -> mx.array:
        a, b = self._operands(n)
        return self._dispatch(a @ b)

    @_memory_errors()
    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        a, b = map(self._to_float32, self._operands(n))
        return a, b

    def _operands(self, n: int) -> tuple[mx.array, mx.array]:
        if n not in self._matmul_operands:
            a, b = (mx.random.normal((n, n), key=mx.random.key(seed)).astype(self._dtype) for seed in range(2))
            mx.eval(a, b)
            self._matmul_operands = {n: (a, b)}
        return self._matmul_operands[n]

    def reset_peak_memory(self) -> None:
        mx.reset_peak_memory()

    def memory(self) -> dict[str, int | None]:
        """Bytes in MLX's allocator; its peak leaves out the cache, which holds freed memory for reuse."""
        return {
            "mlx_peak": mx.get_peak_memory(),
            "mlx_active": mx.get_active_memory(),
            "mlx_cache": mx.get_cache_memory(),
        }

    def _effective_precision(self) -> str:
        """Measured: 1 + 2^-12 is a float32, but TF32 with its 10 bits of fraction rounds it to 1."""
        if self.precision == "bf16":
            emulated = self.device == "cpu" and sys.platform == "linux"
            return "bf16, computed in fp32 registers (no bf16 instructions)" if emulated else "bf16"
        n = 512
        product = mx.full((n, n), 1 + 2**-12) @ mx.eye(n)
        return "fp32" if mx.all(product == 1 + 2**-12).item() else "tf32"

    def _attention_backward(self) -> str:
        """Which backward pass attention has at the batch that is timed, and in conformance where that is another."""
        model = self.spec.model
        tokens = (model.image_size // model.patch_size) ** 2 + 1
        timed, proved = (
            attention_backward((batch, tokens, 3, model.heads, model.dim // model.heads), self._dtype)
            for batch in (self.spec.training.batch_size, BATCH)
        )
        return timed if timed == proved else f"{timed}; in conformance {proved}"

    def _set_state(self, vectors: Arrays, step: int) -> None:
        self._state.update(vectors)
        self._state["step"] = mx.array(step, mx.int32)
        self._inference_params.clear()

    @staticmethod
    def _to_float32(value: mx.array) -> np.ndarray:
        return on_host(value.astype(mx.float32))

    def _dispatch(self, result: mx.array, *state: Arrays) -> mx.array:
        """Start the computation, which MLX would otherwise put off until somebody reads a value."""
        mx.async_eval(result, *state)
        self._in_flight.append(result)
        if len(self._in_flight) > IN_FLIGHT:
            mx.eval(self._in_flight.popleft())
        return result

    def _weights(self) -> Arrays:
        """The parameters in this precision's type, by name: slices of one cast vector."""
        pieces = mx.split(self._state["param"].astype(self._dtype), np.cumsum(self._layout.sizes)[:-1].tolist())
        shaped = zip(self._layout.shapes.items(), pieces, strict=True)
        return {name: piece.reshape(shape) for (name, shape), piece in shaped}

    def _forward(self, params: Arrays, images: mx.array) -> mx.array:
        """Logits float32 [B, C], computed in the type of the parameters."""
        patches = params["patch_embed.proj.weight"]
        as_matrix = {"patch_embed.proj.weight": patches.reshape(len(patches), -1)}  # [D, 3, P, P] -> [D, 3*P*P]
        self._model.update(tree_unflatten(list((params | as_matrix).items())))
        return self._model(images).astype(mx.float32)

    def _loss(self, params: Arrays, images: mx.array, targets: mx.array) -> mx.array:
        with enable_grad():
            logits = self._forward(params, images)
        return nn.losses.cross_entropy(logits, targets, reduction="mean")

    def _step(self, images: mx.array, targets: mx.array, lr: mx.array) -> mx.array:
        """What is compiled as one training step; float32 [2], the loss and the norm before clipping."""
        loss, gradients = mx.value_and_grad(self._loss)(self._weights(), images, targets)
        pieces = [gradients[name] for name in self._layout.shapes]
        if isinstance(self.group, MlxGroup):  # one exchange for all, since the host dispatches each
            joined = mx.distributed.all_sum(join([*pieces, loss]), group=self.group.ranks) / self.group.size
            gradient, loss = joined[:-1], joined[-1]
        else:
            gradient = join(pieces)
        norm = _norm(gradient)
        self._adamw(gradient * mx.minimum(self.spec.optimizer.clip_norm / (norm + 1e-6), 1), lr)
        return mx.stack([loss, norm])

    def _adamw(self, gradient: mx.array, lr: mx.array) -> None:
        """AdamW (arXiv 1711.05101, algorithm 2) on the state.

        Not mlx.optimizers.AdamW: it computes 1 - beta2**step in float32, wrong by 1e-5 of its value at first.
        """
        o, state = self.spec.optimizer, self._state
        state["step"] = state["step"] + 1
        correction1, correction2 = (-mx.expm1(state["step"] * math.log(beta)) for beta in (o.beta1, o.beta2))
        p, m, v = (state[kind] for kind in STATE_KINDS)
        m = o.beta1 * m + (1 - o.beta1) * gradient
        v = o.beta2 * v + (1 - o.beta2) * gradient * gradient
        decay = mx.where(mx.arange(p.size) < self._layout.decayed, lr * o.weight_decay, 0.0)
        update = lr / correction1 * m / (mx.sqrt(v) / mx.sqrt(correction2) + o.eps)
        state.update({"param": p * (1 - decay) - update, "m": m, "v": v})


def _norm(gradient: mx.array) -> mx.array:
    """L2 norm of a vector, float32 [].

    In pieces first: over a long vector MLX's CPU adds up in one go and loses the fourth digit.
    """
    rest = gradient.size % NORM_PIECE
    pieces = mx.square(gradient[: gradient.size - rest]).reshape(-1, NORM_PIECE).sum(-1)
    return mx.sqrt(pieces.sum() + mx.square(gradient[gradient.size - rest :]).sum())


def _fence(device: str) -> int | None:
    """Hold MLX to the working set that macOS recommends, bytes, which is returned; None where there is no such figure.

    MLX's own limit is half as much again, which makes a Mac swap, or worse.
    """
    recommended = mx.device_info().get("max_recommended_working_set_size") if device == "gpu" else None
    if recommended:
        mx.set_memory_limit(int(recommended))
    return int(recommended) if recommended else None


def _cache_limit() -> int:
    """Bytes of freed memory that MLX keeps for reuse at most; it tells only when it is set anew."""
    limit = mx.set_cache_limit(0)
    mx.set_cache_limit(limit)
    return limit


def _openblas_loaded() -> bool:
    """Whether OpenBLAS proper is in this process; NumPy's private copy has another name."""
    maps = Path("/proc/self/maps")
    return maps.exists() and "/libopenblas" in maps.read_text()
