"""Backend for TensorFlow on an NVIDIA GPU or the CPU: everything runs in programs compiled by XLA.

All parameters are one flat float32 vector, and so are both moments. XLA then has one update to compile instead of
152, and the host hands a step's program 4 variables instead of some 450. Inference has each matrix in an array of its
own: out of a vector XLA would copy it at each call, since a product wants its operands in buffers.
"""

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import cpuinfo
import numpy as np
import tensorflow as tf

from bench_tf_cuda import ahead, cudnn
from bench_tf_cuda.model import DeiT
from bench_tf_cuda.ops import why_unfused
from bench_tf_cuda.ranks import TfGroup, group, rank_errors, select_device
from shared_spec.backend import OutOfMemory, enable_grad
from shared_spec.ranks import Group
from shared_spec.workload import params as canonical
from shared_spec.workload.spec import Spec

Value: TypeAlias = tf.Tensor | Future[tf.Tensor]
Batch = tuple[Value, ...]
"""Images, and targets where there are any."""


def _there(value: Value) -> tf.Tensor:
    """The tensor, waited for if it is on its way."""
    return value.result() if isinstance(value, Future) else value


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise TensorFlow's error of that kind as OutOfMemory; also a decorator."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OutOfMemory(error.message.splitlines()[0]) from error


def _xla_flags() -> str:
    """XLA_FLAGS without flags that name a folder, which say nothing about speed."""
    return " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "/" not in flag)


def _driver_version() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    match = re.search(r"\d+\.\d+(\.\d+)?", path.read_text()) if path.exists() else None
    return match.group() if match else None


def _compiled(graph: Callable[..., Any]) -> Any:
    return tf.function(graph, jit_compile=True, autograph=False)


def _on_tensors(concrete: Any) -> Callable[..., Any]:
    """A concrete function's call on tensors alone, without what TensorFlow does to each argument before: 7 us apiece."""
    function, captured = concrete.inference_fn, concrete.captured_inputs
    return lambda *args: function.call_preflattened((*args, *captured))


def _cut(vector: tf.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
    """The arrays of these shapes that follow one another in a vector."""
    pieces = tf.split(vector, [math.prod(shape) for shape in shapes.values()])
    return {name: tf.reshape(piece, shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


EXCHANGES = 100
"""Training steps, the last ones, over which the time of communication is averaged."""


class TfBackend:
    """shared_spec.backend.Backend for TensorFlow and XLA."""

    group: Group

    @_memory_errors()
    def __init__(self, spec: Spec, device: str, precision: str, engine: str) -> None:
        self._place = select_device(device)
        self.group = group(device)
        # Also at bf16, where it spares the float32 preprocessing; products of bfloat16 never use TF32.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.spec, self.precision, self.engine = spec, precision, engine
        self._dtype = tf.bfloat16 if precision == "bf16" else tf.float32

        self._model = DeiT(spec)
        self._layout = canonical.FlatLayout(spec)
        items = self._layout.shapes.items()
        self._matrices = {name: shape for name, shape in items if canonical.has_decay(name, shape)}  # they come first
        self._others = {name: shape for name, shape in items if name not in self._matrices}
        with tf.device(self._place):
            self._params, self._m, self._v = (tf.Variable(tf.zeros(sum(self._layout.sizes))) for _ in range(3))
            self._steps = tf.Variable(0, dtype=tf.int64)  # TensorFlow keeps int32 on the host

        self._compiled_step = _compiled(self._step)
        self._compiled_gradients = _compiled(self._gradients)
        self._compiled_forward = _compiled(self._infer)
        self._compiled_preprocess = _compiled(self._model.preprocess)
        self._compiled_matmul = _compiled(self._matmul)
        self._compiled_share, self._compiled_update = _compiled(self._share), _compiled(self._update)
        self._traced_step_of_ranks = tf.function(self._step_of_ranks, autograph=False)
        self._traced_send = tf.function(self._send, autograph=False)
        self.exchange_seconds: deque[tf.Tensor] = deque(maxlen=EXCHANGES)
        self._programs: dict[tuple[Any, int], Any] = {}
        self._inference_weights: list[tf.Tensor] | None = None  # of the parameters as they are, cast
        self._ahead = ahead.Ahead() if self._place != "CPU:0" else None
        if isinstance(self.group, TfGroup):
            self.group.settle_first(self._settle)
        self._matmul_operands: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}

    def describe(self) -> dict[str, Any]:
        build = tf.sysconfig.get_build_info()
        gpus = tf.config.get_visible_devices("GPU")
        gpu = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        return {
            "framework": "tensorflow",
            "framework_version": tf.__version__,
            "engine": self.engine,
            "device": {
                "kind": "cuda" if "GPU" in self._params.device else "cpu",
                "name": gpu.get("device_name") or cpuinfo.get_cpu_info().get("brand_raw", "unknown"),
                "count": 1,
            },
            "compile_mode": "XLA (jit_compile), one program for each batch size"
            + (", in two parts with the all-reduce between them" if self.group.size > 1 else ""),
            "precision": {"requested": self.precision, "effective": self._effective_precision()},
            "details": {
                "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
                "xla_flags": _xla_flags(),
                "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0")) or None,
                "attention": self._attention(),
                "memory_growth": tf.config.experimental.get_memory_growth(gpus[0]) if gpus else None,
                "compute_capability": ".".join(map(str, gpu["compute_capability"])) if gpus else None,
                "driver": _driver_version() if gpus else None,
                "cuda_built_for": build.get("cuda_version"),
                "cudnn_built_for": build.get("cudnn_version"),
                "cudnn": cudnn.version(),
            },
        }

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        canonical.check(self.spec, params, "load_params")
        self._settle()
        self._inference_weights = None
        self._params.assign(self._layout.flatten(params))
        for variable in (self._m, self._v, self._steps):
            variable.assign(tf.zeros_like(variable))

    def export_params(self) -> canonical.Params:
        self._settle()
        return self._layout.by_name(self._params.numpy())

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._settle()
        self._inference_weights = None
        self._steps.assign(state["step"])
        for key, variable in self._vectors().items():
            variable.assign(self._layout.flatten({name: state[f"{key}/{name}"] for name in self._layout.shapes}))

    def export_state(self) -> dict[str, np.ndarray]:
        self._settle()
        state = {"step": np.array(self._steps.numpy(), np.int64)}
        for key, variable in self._vectors().items():
            state |= {f"{key}/{name}": value for name, value in self._layout.by_name(variable.numpy()).items()}
        return state

    @_memory_errors()
    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return (self._put(images),) if targets is None else (self._fed(images), self._fed(targets))

    @_memory_errors()
    def train_step(self, batch: Batch, lr: float) -> Value:
        self._inference_weights = None  # before the step: it would keep the old parameters in memory
        arguments = (*batch, self._fed(np.float32(lr)))
        return self._train_on(*arguments) if self._ahead is None else self._ahead.launch(self._train_on, *arguments)

    def infer(self, batch: Batch) -> tf.Tensor:
        if self._inference_weights is None:  # cast once, for as long as the parameters stay as they are
            self._settle()
            self._inference_weights = self._cast_weights()
        return self._run(self._compiled_forward, batch[0], *self._inference_weights)

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        return self._layout.by_name(self._run(self._compiled_gradients, *batch).numpy())

    def communication(self) -> dict[str, float] | None:
        """From this rank's gradients to the sum of all, waiting for slower ranks included, after the backward pass.

        Time stamps are operators on the host. On a GPU they would not wait for kernels, so there is no figure.
        """
        if self._place != "CPU:0" or not self.exchange_seconds:
            return None
        return {"seconds": float(np.mean(self.exchange_seconds)), "overlapped_seconds": 0.0}

    def preprocess(self, batch: Batch) -> tf.Tensor:
        return tf.transpose(self._run(self._compiled_preprocess, batch[0]), (0, 2, 3, 1))

    @_memory_errors()
    def synchronize(self, *handles: Value) -> None:
        """Read from each handle, or without any from a variable that every training step sets.

        A program's results can be read when all of it has run, its changes to variables included. All before it has
        run too: TensorFlow has one stream for a GPU's kernels, and a copy to the host waits for what is in it.
        """
        self._settle()
        for handle in map(_there, handles or (self._steps,)):
            (handle if handle.shape.num_elements() < 2**16 else handle[0]).numpy()

    @_memory_errors()
    def to_numpy(self, handle: Value) -> np.ndarray:
        return _there(handle).numpy().astype(np.float32, copy=False)

    @_memory_errors()
    def matmul(self, n: int) -> tf.Tensor:
        return self._run(self._compiled_matmul, *self._operands(n))

    @_memory_errors()
    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        a, b = (operand.numpy().astype(np.float32, copy=False) for operand in self._operands(n))
        return a, b

    def _operands(self, n: int) -> tuple[tf.Tensor, tf.Tensor]:
        if n not in self._matmul_operands:
            with tf.device(self._place):
                a, b = (tf.cast(tf.random.stateless_normal((n, n), seed=(n, i)), self._dtype) for i in range(2))
            self._matmul_operands = {n: (a, b)}
        return self._matmul_operands[n]

    def reset_peak_memory(self) -> None:
        if self._place == "GPU:0":
            tf.config.experimental.reset_memory_stats(self._place)

    def memory(self) -> dict[str, int | None]:
        if self._place == "CPU:0":
            return {}
        info = tf.config.experimental.get_memory_info(self._place)
        return {"tf_peak": info["peak"], "tf_current": info["current"]}

    def _effective_precision(self) -> str:
        """How products are computed, read back from TensorFlow, and on a CPU from what XLA makes of one."""
        if self.precision == "fp32":
            return "tf32" if tf.config.experimental.tensor_float_32_execution_enabled() else "fp32"
        return "bf16" if self._has_bf16_products() else "bf16, computed in fp32 registers (no bf16 instructions)"

    def _has_bf16_products(self) -> bool:
        """Whether bfloat16 operands are multiplied as they are: on GPUs from compute capability 8.0 on."""
        if gpus := tf.config.get_visible_devices("GPU"):
            return tf.config.experimental.get_device_details(gpus[0])["compute_capability"] >= (8, 0)
        operand = tf.zeros((64, 64), tf.bfloat16)
        program = self._compiled_matmul.experimental_get_compiler_ir(operand, operand)(stage="optimized_hlo")
        return re.search(r"= f32\[64,64\]\S* convert\(", program) is None

    def _attention(self) -> str:
        """How attention is computed; cuDNN's is for bfloat16 on a GPU."""
        m = self.spec.model
        reason = why_unfused(self._dtype, m.tokens, m.heads, m.dim // m.heads)
        if reason is None:
            return "cuDNN, fused"
        return "products and softmax" + (f", since cuDNN's is not to be had: {reason}" if reason else "")

    def _vectors(self) -> dict[str, tf.Variable]:
        return {"param": self._params, "m": self._m, "v": self._v}

    def _put(self, value: np.ndarray | np.float32) -> tf.Tensor:
        with tf.device(self._place):
            return tf.constant(value)

    def _post(self, value: np.ndarray | np.float32) -> tf.Tensor:
        with tf.device("CPU:0"):
            return self._traced_send(tf.constant(value))

    def _send(self, value: tf.Tensor) -> tf.Tensor:
        """To the device by way of pinned memory, where TensorFlow puts what an operator on the host makes to be sent.

        A copy from NumPy's own memory would hold up whatever other threads want of the GPU until it is done.
        """
        with tf.device("CPU:0"):
            staged = tf.raw_ops.DeepCopy(x=value)
        with tf.device(self._place):
            return tf.identity(staged)

    def _fed(self, value: np.ndarray | np.float32) -> Value:
        """What a training step takes from the host: there, or on its way where steps are given ahead."""
        return self._put(value) if self._ahead is None else self._ahead.copy(self._post, value)

    @_memory_errors()
    def _settle(self) -> None:
        if self._ahead is not None:
            self._ahead.settle()

    def _run(self, function: Any, *args: Value) -> tf.Tensor:
        """`function` behind all training steps so far."""
        self._settle()
        return self._call(function, *map(_there, args))

    @_memory_errors()
    def _call(self, function: Any, *args: tf.Tensor) -> tf.Tensor:
        """Call `function` as compiled for this batch size; TensorFlow's own dispatcher is slow to find it."""
        key = (function, args[0].shape[0])
        if key not in self._programs:
            self._programs[key] = _on_tensors(function.get_concrete_function(*args))
        return self._programs[key](*args)

    def _train_on(self, *arguments: tf.Tensor) -> tf.Tensor:
        with tf.device(self._place):
            return (
                self._call(self._compiled_step, *arguments)
                if self.group.size == 1
                else self._train_with_ranks(*arguments)
            )

    @rank_errors()
    def _train_with_ranks(self, *arguments: tf.Tensor) -> tf.Tensor:
        compiles = (self._traced_step_of_ranks, arguments[0].shape[0]) not in self._programs
        result, seconds = self._call(self._traced_step_of_ranks, *arguments)
        if not compiles:  # ranks do not take equally long over that, and would wait for one another
            self.exchange_seconds.append(seconds)
        return result

    @_memory_errors()
    def _cast_weights(self) -> list[tf.Tensor]:
        """All parameters in this precision's type: each matrix by itself, and behind them the others as one vector."""
        with tf.device(self._place):
            matrices, others = tf.split(tf.cast(self._params, self._dtype), [self._layout.decayed, -1])
            return [*_cut(matrices, self._matrices).values(), others]

    def _infer(self, images: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, C], computed in this precision's type, of weights as `_cast_weights` gives them."""
        *matrices, others = weights
        self._model.update(dict(zip(self._matrices, matrices, strict=True)) | _cut(others, self._others))
        return tf.cast(self._model(images), tf.float32)

    def _forward(self, images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Logits float32 [B, C] in training; the model's weights are slices of `weights`, [parameters]."""
        self._model.update(_cut(weights, self._layout.shapes))
        return tf.cast(self._model(images), tf.float32)

    def _loss_and_gradient(self, images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape, enable_grad():
            logits = self._forward(images, tf.cast(self._params, self._dtype))
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        return loss, tape.gradient(loss, self._params)

    def _gradients(self, images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return self._loss_and_gradient(images, targets)[1]

    def _step(self, images: tf.Tensor, targets: tf.Tensor, lr: tf.Tensor) -> tf.Tensor:
        return self._clip_and_update(*self._loss_and_gradient(images, targets), lr)

    def _step_of_ranks(self, images: tf.Tensor, targets: tf.Tensor, lr: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The training step of one rank of several; its result, and the seconds of the exchange.

        Two programs with the exchange between them, as XLA compiles no collective for a CPU. It starts when the whole
        gradient is there, and overlaps with nothing.
        """
        assert isinstance(self.group, TfGroup)
        share = self._compiled_share(images, targets)
        with tf.control_dependencies([share]):
            start = tf.timestamp()
        with tf.control_dependencies([start]):
            total = self.group.sum(share)
        with tf.control_dependencies([total]):
            seconds = tf.timestamp() - start
        return self._compiled_update(total, lr), seconds

    def _share(self, images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """What a rank adds to the global gradient and, behind it, to the loss: one message, [parameters + 1]."""
        loss, gradient = self._loss_and_gradient(images, targets)
        return tf.concat((gradient, loss[None]), 0) / self.group.size

    def _update(self, total: tf.Tensor, lr: tf.Tensor) -> tf.Tensor:
        return self._clip_and_update(total[-1], total[:-1], lr)

    def _clip_and_update(self, loss: tf.Tensor, gradient: tf.Tensor, lr: tf.Tensor) -> tf.Tensor:
        norm = tf.norm(gradient)
        self._adamw(gradient * tf.minimum(1.0, self.spec.optimizer.clip_norm / (norm + 1e-6)), lr)
        return tf.stack((loss, norm))

    def _adamw(self, gradient: tf.Tensor, lr: tf.Tensor) -> None:
        """AdamW (arXiv 1711.05101, algorithm 2), eps added to the root of the corrected moment as in PyTorch."""
        o = self.spec.optimizer
        step = tf.cast(self._steps.assign_add(1), tf.float32)
        m = self._m.assign(o.beta1 * self._m + (1 - o.beta1) * gradient)
        v = self._v.assign(o.beta2 * self._v + (1 - o.beta2) * tf.square(gradient))
        m_hat = m / -tf.math.expm1(step * math.log(o.beta1))  # 1 - beta^step, exact in float32 from the first step on
        v_hat = v / -tf.math.expm1(step * math.log(o.beta2))
        decay = tf.pad(o.weight_decay * self._params[: self._layout.decayed], [[0, m.shape[0] - self._layout.decayed]])
        self._params.assign_sub(lr * (m_hat / (tf.sqrt(v_hat) + o.eps) + decay))

    def _matmul(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.einsum("ik,kj->ij", a, b)
