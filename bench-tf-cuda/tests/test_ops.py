"""Operators with gradients of their own, against their textbook formulas in float64, which TensorFlow differentiates."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda import ops

EPS = 1e-6
TOLERANCE = {tf.float32: 1e-6, tf.bfloat16: 2**-8}
"""Of the largest value; sums of 40 rows included."""


def exact_gelu(x: tf.Tensor) -> tf.Tensor:
    return x * tf.math.erfc(-x / tf.sqrt(tf.constant(2, x.dtype))) / 2


def exact_layer_norm(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + EPS) * weight + bias


def with_gradients(
    function: Callable[..., tf.Tensor], inputs: Sequence[np.ndarray], dy: np.ndarray, dtype: tf.DType
) -> list[np.ndarray]:
    """Output and gradients as float64."""

    @tf.function(jit_compile=True, autograph=False)
    def both(*values: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = function(*values)
        return [y, *tape.gradient(y, values, tf.constant(dy, dtype))]

    return [tf.cast(x, tf.float64).numpy() for x in both(*(tf.constant(x, dtype) for x in inputs))]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["gelu", "layer_norm", "inference_layer_norm"])
def test_output_and_gradients_are_the_textbooks(name: str, dtype: tf.DType) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 4, 5, 24))
    inputs = [3 * x + 1]
    own: Callable[..., tf.Tensor] = ops.gelu
    exact: Callable[..., tf.Tensor] = exact_gelu
    if name.endswith("layer_norm"):
        inputs += [1 + rng.standard_normal(24), rng.standard_normal(24)]
        norm = getattr(ops, name)
        own, exact = (lambda x, weight, bias: norm(x, weight, bias, EPS)), exact_layer_norm
    inputs = [tf.cast(tf.cast(value, dtype), tf.float64).numpy() for value in inputs]  # what both are given
    dy = tf.cast(tf.cast(dy, dtype), tf.float64).numpy()
    for found, expected in zip(
        with_gradients(own, inputs, dy, dtype), with_gradients(exact, inputs, dy, tf.float64), strict=True
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())


def test_gelu_is_as_exact_as_float32_allows() -> None:
    x = np.linspace(-30, 30, 60001, dtype=np.float32)
    found, slope = with_gradients(ops.gelu, [x], np.ones_like(x), tf.float32)
    expected, expected_slope = with_gradients(exact_gelu, [x], np.ones_like(x), tf.float64)
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=4e-7)
    np.testing.assert_allclose(slope, expected_slope, rtol=0, atol=5e-7)
    np.testing.assert_allclose(found[x < -4], expected[x < -4], rtol=0.05, atol=1e-12)  # float32's 1 + erf is 0 there
