"""How TensorFlow and XLA compute the model's operators.

GELU and LayerNorm have gradients of their own, from which XLA makes fewer passes over memory than from TensorFlow's.
Matrix products are einsums: with TF32 off, tf.matmul also asks XLA for the highest precision in bfloat16.
"""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from bench_tf_cuda import cudnn
from shared_spec.backend import grad_enabled


class Module:
    """A part of the model. Its weights are shapes, until `update` puts tensors there while a program is traced."""

    def update(self, weights: Mapping[str, tf.Tensor]) -> None:
        """Set each weight where its canonical name leads to, such as "blocks.0.attn.qkv.weight".

        Raises:
            ValueError: a weight has another shape than the model has there.
        """
        for name, value in weights.items():
            *path, attribute = name.split(".")
            owner = reduce(_part, path, self)
            getattr(owner, attribute).shape.assert_is_compatible_with(value.shape)
            setattr(owner, attribute, value)


def _part(module: Any, key: str) -> Any:
    return module[int(key)] if key.isdigit() else getattr(module, key)


class Linear(Module):
    """x W^T + b over the last axis: [..., in] -> [..., out].

    Over rows, because XLA turns the operands of a product over several axes round to make them rows.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight: Any = tf.TensorSpec((outputs, inputs))
        self.bias: Any = tf.TensorSpec((outputs,))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(x, (-1, x.shape[-1]))
        return tf.reshape(tf.einsum("ri,oi->ro", rows, self.weight) + self.bias, (*x.shape[:-1], -1))


class Conv2d(Module):
    """Convolution whose stride is its kernel's size, as one product: [B, C, I, I] -> [B, G, G, D], I = G * size."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        self.weight: Any = tf.TensorSpec((outputs, inputs, size, size))
        self.bias: Any = tf.TensorSpec((outputs,))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        b, c, i, _ = x.shape
        p = self.weight.shape[-1]
        patches = tf.reshape(x, (b, c, i // p, p, i // p, p))
        return tf.einsum("bcgphq,dcpq->bghd", patches, self.weight) + self.bias


def has_gpu() -> bool:
    """Whether programs run on a GPU: the backend shows TensorFlow one only where it is to use one."""
    return bool(tf.config.get_visible_devices("GPU"))


def why_unfused(dtype: tf.DType, tokens: int, heads: int, dim: int) -> str | None:
    """None where cuDNN computes attention; cuDNN's words where it refuses; empty where it is not for it."""
    return cudnn.refusal(tokens, heads, dim) if dtype == tf.bfloat16 and has_gpu() else ""


def attention(qkv: tf.Tensor) -> tf.Tensor:
    """softmax(q k^T / sqrt(D/H)) v: [B, N, 3, H, D/H] -> [B, N, H, D/H]; fused by cuDNN where it serves."""
    _, n, _, h, d = qkv.shape
    return cudnn.attention(qkv) if why_unfused(qkv.dtype, n, h, d) is None else unfused_attention(qkv)


def unfused_attention(qkv: tf.Tensor) -> tf.Tensor:
    """Attention of single products, and a softmax in float32 between them.

    In bfloat16 the tokens are padded to a multiple of 8, which tensor cores want: XLA would otherwise pad each operand
    of each product by itself. The mask keeps padded tokens out of the softmax.
    """
    n = qkv.shape[1]
    padding = -n % 8 if qkv.dtype == tf.bfloat16 else 0
    mask = tf.constant([0.0] * n + [-math.inf] * padding)
    qkv = tf.pad(qkv, [[0, 0], [0, padding], [0, 0], [0, 0], [0, 0]])
    q, k, v = tf.unstack(qkv, axis=2)
    scores = tf.cast(tf.einsum("bnhd,bmhd->bhnm", q, k), tf.float32) * q.shape[-1] ** -0.5
    weights = tf.cast(tf.nn.softmax(scores + mask), v.dtype)  # [B, H, N, N]
    return tf.einsum("bhnm,bmhd->bnhd", weights, v)[:, :n]


_TAIL = [b * (2 * math.pi) ** -0.5 for b in (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530)]
"""Coefficients of `_normal_tail`, the highest power's first."""


def _normal_tail(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For float32 x >= 0: what a normal distribution has beyond x, divided by exp(-x^2 / 2); and that exponential.

    Their product is within 7.5e-8 of the tail (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17),
    which is how far float32 takes 1 + erf, and far closer to it where the tail is small. XLA's erf takes a GPU half as
    many instructions more, and has no use for the exponential that the gradient needs.
    """
    t = 1 / (1 + 0.2316419 * x)
    return t * tf.math.polyval(_TAIL, t), tf.exp(-0.5 * tf.square(x))


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Exact GELU (arXiv 1606.08415) in float32: max(x, 0) less |x| times the normal tail beyond |x|.

    Its gradient starts from x again, where TensorFlow's keeps the erf.
    """

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        z = tf.cast(x, tf.float32)
        tail, bell = _normal_tail(tf.abs(z))
        below = bell * (tail - (2 * math.pi) ** -0.5 * tf.abs(z))  # the slope at -|x|
        return tf.cast(tf.cast(dy, tf.float32) * tf.where(z > 0, 1 - below, below), x.dtype)

    z = tf.cast(x, tf.float32)
    tail, bell = _normal_tail(tf.abs(z))
    return tf.cast(tf.nn.relu(z) - tf.abs(z) * (tail * bell), x.dtype), gradient


class LayerNorm(Module):
    """Over the last axis, computed in float32: [..., D] -> [..., D]."""

    def __init__(self, dim: int, eps: float) -> None:
        self.weight: Any = tf.TensorSpec((dim,))
        self.bias: Any = tf.TensorSpec((dim,))
        self.eps = eps

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        function = layer_norm if grad_enabled() else inference_layer_norm
        return function(x, self.weight, self.bias, self.eps)


def inference_layer_norm(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, eps: float) -> tf.Tensor:
    """What `layer_norm` computes, for inference alone: XLA makes one kernel of it for a GPU, where that takes four."""
    z = tf.cast(x, tf.float32)
    centred = z - tf.reduce_mean(z, -1, keepdims=True)
    rstd = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + eps)
    return tf.cast(centred * rstd * tf.cast(weight, tf.float32) + tf.cast(bias, tf.float32), x.dtype)


@tf.custom_gradient
def layer_norm(
    x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, eps: float
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor, None]]]:
    """Layer normalisation (arXiv 1607.06450) over the last axis, in float32: [..., D] -> [..., D].

    The barriers have XLA write down what a row is reduced to, 1/D of the input. Left to itself it fuses those
    reductions with whatever reads them, which then cannot be fused with the sums over columns for the weights.
    """
    z, scale = tf.cast(x, tf.float32), tf.cast(weight, tf.float32)
    mean = tf.reduce_mean(z, -1, keepdims=True)
    rstd = tf.math.rsqrt(tf.reduce_mean(tf.square(z - mean), -1, keepdims=True) + eps)
    mean, rstd = gen_xla_ops.xla_optimization_barrier([mean, rstd])
    normal = (z - mean) * rstd

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, None]:
        g = tf.cast(dy, tf.float32)
        h = g * scale
        parts = [tf.reduce_mean(h, -1, keepdims=True), tf.reduce_mean(h * normal, -1, keepdims=True)]
        shift, slope = gen_xla_ops.xla_optimization_barrier(parts)
        rows = list(range(x.shape.rank - 1))
        dx = tf.cast((h - shift - normal * slope) * rstd, x.dtype)
        return (
            dx, tf.cast(tf.reduce_sum(g * normal, rows), weight.dtype), tf.cast(tf.reduce_sum(g, rows), bias.dtype), None
        )  # fmt: skip

    return tf.cast(normal * scale + tf.cast(bias, tf.float32), x.dtype), gradient
