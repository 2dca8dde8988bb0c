"""How MLX computes the model's operators, and a training step's other ones.

All of it spares kernels, since small batches wait for the host to dispatch them, or activations. Some of it pays only
where gradients are taken, which MLX does not tell an operator as PyTorch does: `enable_grad` says so.
"""

import io
import math
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx import nn

from bench_mlx import cuda
from shared_spec.backend import enable_grad, grad_enabled


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
    rows, inputs = (value if value.ndim == 2 else value.flatten(0, -2) for value in (dy, x))
    sums = cuda.column_sums(rows) if on_cuda() else rows.sum(0)
    return dy @ weight, rows.T @ inputs, sums


class Linear(nn.Linear):
    """x W^T + b over the last axis: [..., in] -> [..., out]; where gradients are taken, `linear`."""

    def __call__(self, x: mx.array) -> mx.array:
        if grad_enabled():
            return linear(x, self.weight, self.bias)  # type: ignore[return-value]  # to MLX's stubs it is an object
        return super().__call__(x)


class LayerNorm(nn.LayerNorm):
    """Over the last axis: [..., D] -> [..., D]; MLX's own kernel, whose statistics are float32."""


FUSED_TOKENS = 128
"""On CUDA, MLX's attention has a fused backward pass for multiples of so many tokens alone; otherwise it writes scores
to memory."""
FUSED_BATCH = 96
"""From this batch on padding to that pays: it costs the host more to dispatch, which small batches wait for."""


FEW_IMAGES = 2
"""Up to so many, cuDNN's attention on CUDA costs the host more than a plain kernel of this package costs the GPU."""


def has_fused_backward(dtype: mx.Dtype) -> bool:
    """Whether cuDNN's backward pass can serve attention: on CUDA, in bfloat16."""
    return bool(dtype == mx.bfloat16 and on_cuda())


@cache
def _mask(tokens: int, padding: int) -> mx.array:
    """What is added to scores [N, N] so that softmax leaves out the last `padding` keys."""
    row = [0.0] * tokens + [-math.inf] * padding
    return mx.array([row] * len(row), mx.bfloat16)


@cache
def _scales(d: int, dtype: mx.Dtype) -> mx.array:
    """What q, k and v of d values a head are multiplied by, [3, 1, 1, 1, 1]."""
    return mx.array([[[[[scale]]]] for scale in (d**-0.5, 1.0, 1.0)], dtype)


def _softmax_gradient(y: mx.array, dy: mx.array, sums: mx.array) -> mx.array:
    """y (dy - sums), rounded once; sums, float32, are those of y dy over the last axis."""
    return (y * (dy.astype(mx.float32) - sums)).astype(y.dtype)


@mx.custom_function
def attention_with_scores(qkv: mx.array) -> tuple[mx.array, ...]:
    """`attention` written out, and what its gradient needs: the probabilities [B*H, N, N], and q, k, v [B*H, N, D/H].

    MLX's own gradient of attention, where it is not fused, copies q, k and v once more and takes their gradients apart
    piece by piece; its sums in the gradient of softmax are of the type of the operands.
    """
    b, n, _, h, d = qkv.shape
    heads = (qkv.transpose(2, 0, 3, 1, 4) * _scales(d, qkv.dtype)).reshape(3 * b * h, n, d)
    q, k, v = mx.split(heads, 3)
    probabilities = mx.softmax(q @ k.swapaxes(1, 2), -1, precise=True)
    x = (probabilities @ v).reshape(b, h, n, d)
    return x.transpose(0, 2, 1, 3), probabilities, q, k, v


@attention_with_scores.vjp
def _attention_gradient(qkv: mx.array, cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> mx.array:
    b, n, _, h, d = qkv.shape
    x, probabilities, q, k, v = outputs
    dx = cotangents[0].transpose(0, 2, 1, 3).reshape(b * h, n, d)
    dv, slopes = probabilities.swapaxes(1, 2) @ dx, dx @ v.swapaxes(1, 2)
    if on_cuda():
        slopes = cuda.softmax_gradient(probabilities, slopes)
        return cuda.merge_heads(slopes @ k, slopes.swapaxes(1, 2) @ q, dv, h)
    # The sums of probabilities times their gradients are those of x times its gradient, over fewer values.
    sums = (dx.astype(mx.float32) * x.transpose(0, 2, 1, 3).reshape(b * h, n, d)).sum(-1, keepdims=True)
    slopes = _softmax_gradient(probabilities, slopes, sums)
    pieces = (slopes @ k) * d**-0.5, slopes.swapaxes(1, 2) @ q, dv
    return mx.concatenate([piece.reshape(b, h, n, 1, d).transpose(0, 2, 3, 1, 4) for piece in pieces], 2)


def attention(qkv: mx.array) -> mx.array:
    """softmax(q k^T / sqrt(D/H)) v: [B, N, 3, H, D/H] -> [B, N, H, D/H].

    MLX's own, except that where gradients are taken and its backward pass is not fused, it is written out here. Tokens
    are padded where that makes it fused, and the mask takes them out again.
    """
    b, n, _, _, d = qkv.shape
    mask, padding = None, -n % FUSED_TOKENS
    if grad_enabled() and not mx.metal.is_available():
        if b < FUSED_BATCH or not has_fused_backward(qkv.dtype):
            written_out: Any = attention_with_scores(qkv)
            x: mx.array = written_out[0]
            return x
        if padding:
            qkv, mask = mx.pad(qkv, [(0, 0), (0, padding), (0, 0), (0, 0), (0, 0)]), _mask(n, padding)
    if not grad_enabled() and b <= FEW_IMAGES and on_cuda() and cuda.attends(qkv):
        return cuda.attend(qkv)
    # Cut first: so the gradient is put together as qkv lies, and not copied once more.
    q, k, v = (part.squeeze(2).transpose(0, 2, 1, 3) for part in mx.split(qkv, 3, 2))  # each [B, H, N, D/H]
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


def gelu(x: mx.array) -> mx.array:
    """Exact GELU, computed in float32, element by element.

    Where gradients are taken, mx.checkpoint keeps x alone for the backward pass and computes the rest again there:
    forward and backward are one fused kernel each. Without it the compiler splits the forward into three kernels, in
    order to keep two more activations of the size of x.
    """
    return _checkpointed_gelu(x) if grad_enabled() else _gelu(x)


def _gelu(x: mx.array) -> mx.array:
    return nn.gelu(x.astype(mx.float32)).astype(x.dtype)


_checkpointed_gelu = mx.checkpoint(_gelu)


def join(pieces: Sequence[mx.array]) -> mx.array:
    """All values of `pieces` as one float32 vector.

    On CUDA it is one kernel, where mx.concatenate takes one for each piece. Metal binds 31 arrays to a kernel at most.
    """
    if on_cuda():
        return cuda.join(pieces)
    runs = [list(run) for _, run in groupby(pieces, lambda piece: piece.dtype)]  # a cast for each run, not each piece
    joined = [mx.concatenate([piece.flatten() for piece in run]).astype(mx.float32) for run in runs]
    return joined[0] if len(joined) == 1 else mx.concatenate(joined)
