"""Operators with gradients of their own, from which XLA makes fewer passes over memory than from TensorFlow's."""

import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

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
