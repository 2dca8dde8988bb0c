"""How MLX computes the model's operators, and a training step's other ones.

All of it spares kernels, since small batches wait for the host to dispatch them, or activations. Some of it pays only
where gradients are taken, which MLX does not tell an operator as PyTorch does: `enable_grad` says so.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import accumulate
from typing import Any

import mlx.core as mx
from mlx import nn

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=False)


@contextmanager
def enable_grad() -> Iterator[None]:
    """Operators called in this block are to be differentiated."""
    token = _grad_enabled.set(True)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


def on_cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU, unless it is told otherwise."""
    return bool(mx.cuda.is_available() and mx.default_device() == mx.Device(mx.gpu))


@mx.custom_function
def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """The layer x W^T + b over the last axis: [..., in], [out, in], [out] -> [..., out].

    MLX's own gradient of the weight is that of W^T turned round, which has to be copied to lie as the weight does.
    """
    return mx.addmm(bias, x, weight.T)


@linear.vjp
def _linear_gradients(primals: Sequence[mx.array], dy: mx.array, _: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, _ = primals
    rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(0)


class Linear(nn.Linear):
    """x W^T + b over the last axis: [..., in] -> [..., out]; where gradients are taken, `linear`."""

    def __call__(self, x: mx.array) -> mx.array:
        if _grad_enabled.get():
            return linear(x, self.weight, self.bias)  # type: ignore[return-value]  # to MLX's stubs it is an object
        return super().__call__(x)


class LayerNorm(nn.LayerNorm):
    """Over the last axis: [..., D] -> [..., D]; MLX's own kernel, whose statistics are float32."""


FUSED_TOKENS = 128
"""On CUDA, MLX's attention has a fused backward pass for multiples of so many tokens alone; otherwise it writes scores
to memory."""
FUSED_BATCH = 96
"""From this batch on padding to that pays: it costs the host more to dispatch, which small batches wait for."""


def has_fused_backward(dtype: mx.Dtype) -> bool:
    """Whether cuDNN's backward pass can serve attention: on CUDA, in bfloat16."""
    return bool(dtype == mx.bfloat16 and on_cuda())


@cache
def _mask(tokens: int, padding: int) -> mx.array:
    """What is added to scores [N, N] so that softmax leaves out the last `padding` keys."""
    row = [0.0] * tokens + [-math.inf] * padding
    return mx.array([row] * len(row), mx.bfloat16)


def attention(qkv: mx.array) -> mx.array:
    """softmax(q k^T / sqrt(D/H)) v: [B, N, 3, H, D/H] -> [B, N, H, D/H].

    Tokens are padded where that makes the backward pass fused, and the mask takes them out again.
    """
    b, n, _, _, d = qkv.shape
    mask, padding = None, -n % FUSED_TOKENS
    if padding and _grad_enabled.get() and b >= FUSED_BATCH and has_fused_backward(qkv.dtype):
        qkv, mask = mx.pad(qkv, [(0, 0), (0, padding), (0, 0), (0, 0), (0, 0)]), _mask(n, padding)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [B, H, N, D/H]
    x = mx.fast.scaled_dot_product_attention(q, k, v, scale=d**-0.5, mask=mask)
    return x[:, :, :n].transpose(0, 2, 1, 3)


def attention_backward(shape: tuple[int, ...], dtype: mx.Dtype) -> str:
    """Which backward pass MLX has for attention over q, k and v of this shape here, as its graph tells.

    On Metal it is fused from 0.32.4 on, unless MLX_SDPA_VJP_FALLBACK is set.
    """
    qkv = mx.zeros(shape, dtype)  # nothing of this is computed
    with enable_grad():
        x, (gradient,) = mx.vjp(attention, [qkv], [mx.zeros((*shape[:2], *shape[3:]), dtype)])
    graph = io.StringIO()
    mx.export_to_dot(graph, *x, gradient)
    return "fused" if "ScaledDotProductAttentionVJP" in graph.getvalue() else "scores written to memory"


@mx.checkpoint
def gelu(x: mx.array) -> mx.array:
    """Exact GELU, computed in float32, element by element.

    mx.checkpoint keeps x alone for the backward pass and computes the rest again there: forward and backward are
    one fused kernel each. Without it the compiler splits the forward into three kernels, in order to keep two more
    activations of the size of x.
    """
    return nn.gelu(x.astype(mx.float32)).astype(x.dtype)


BLOCKS, THREADS = 128, 256
"""Blocks for each array that is joined, and their threads."""
COPY = """
template <typename T>
__device__ void copy(const T* from, float* to, int size) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
    to[i] = static_cast<float>(from[i]);
}
"""


@cache
def _join_kernel(sizes: tuple[int, ...]) -> Callable[..., list[mx.array]]:
    """A CUDA kernel that copies arrays of these sizes behind one another: a row of its grid for each."""
    starts = accumulate(sizes, initial=0)
    cases = [
        f"case {i}: copy(piece{i}, out + {start}, {size}); break;"
        for i, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    kernel: Any = mx.fast.cuda_kernel(
        name=f"join_{len(sizes)}_{sum(sizes)}",
        input_names=[f"piece{i}" for i in range(len(sizes))],
        output_names=["out"],
        header=COPY,
        source="switch (blockIdx.y) {\n" + "\n".join(cases) + "\n}",
    )
    return kernel


def join(pieces: Sequence[mx.array]) -> mx.array:
    """All values of `pieces`, arrays of one type, as one float32 vector.

    On CUDA it is one kernel, where mx.concatenate takes one for each piece. Metal binds 31 arrays to a kernel at most.
    """
    if not on_cuda():
        return mx.concatenate([piece.flatten() for piece in pieces]).astype(mx.float32)
    sizes = tuple(piece.size for piece in pieces)
    (joined,) = _join_kernel(sizes)(
        inputs=list(pieces),
        grid=(BLOCKS * THREADS, len(pieces), 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(sum(sizes),)],
        output_dtypes=[mx.float32],
    )
    return joined
