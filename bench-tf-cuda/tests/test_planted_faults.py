"""Faults planted into this platform's own operators, model and backend: each fails the check meant for it.

One precision for each fault and a model of one block, as every fault has programs of its own to be compiled.
"""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda import model, ops
from bench_tf_cuda.backend import Batch, TfBackend, Value
from shared_spec.dev.planted_faults import Fault, Patch, cached_batch_1, cases, round_to
from shared_spec.dev.testing import check_named
from shared_spec.workload.spec import Spec


def layer_norm_in_bf16(patch: Patch) -> None:
    def call(self: ops.LayerNorm, x: tf.Tensor) -> tf.Tensor:
        z = tf.cast(x, tf.bfloat16)
        centred = z - tf.reduce_mean(z, -1, keepdims=True)
        normal = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + self.eps)
        return tf.cast(normal, x.dtype) * self.weight + self.bias

    patch.setattr(ops.LayerNorm, "__call__", call)


def softmax_in_bf16(patch: Patch) -> None:
    def softmax(scores: tf.Tensor) -> tf.Tensor:
        exponentials = tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True))
        return exponentials / round_to(tf.reduce_sum(exponentials, -1, keepdims=True), 8)

    patch.setattr(ops.tf.nn, "softmax", softmax)


def tf32_in_attention(patch: Patch) -> None:
    attention = ops.attention
    patch.setattr(model, "attention", lambda qkv: attention(round_to(qkv, 11)))


def tanh_gelu(patch: Patch) -> None:
    patch.setattr(model, "gelu", lambda x: tf.cast(tf.nn.gelu(tf.cast(x, tf.float32), approximate=True), x.dtype))


def loss_in_bf16(patch: Patch) -> None:
    entropy = tf.nn.softmax_cross_entropy_with_logits

    def lower(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return round_to(entropy(targets, logits), 8)

    patch.setattr(tf.nn, "softmax_cross_entropy_with_logits", lower)


def resize_in_step(change: Callable[[tf.Tensor, np.ndarray], tf.Tensor]) -> Callable[[Patch], None]:
    """Another resize where a gradient is taken, and the specified one in `preprocess` and `infer`."""

    def plant(patch: Patch) -> None:
        whole, in_step = TfBackend._loss_and_gradient, model.Preprocess.__call__

        def call(self: model.Preprocess, images: tf.Tensor) -> tf.Tensor:
            return change((tf.cast(images, tf.float32) / 255 - self._mean) / self._std, self._upscale)

        def traced(self: TfBackend, images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            model.Preprocess.__call__ = call
            try:
                return whole(self, images, targets)
            finally:
                model.Preprocess.__call__ = in_step

        patch.setattr(TfBackend, "_loss_and_gradient", traced)

    return plant


def in_bf16(x: tf.Tensor, upscale: np.ndarray) -> tf.Tensor:
    u = round_to(tf.constant(upscale), 8)
    rows = round_to(tf.einsum("is,bstc->bitc", u, round_to(x, 8)), 8)
    return tf.einsum("bitc,jt->bcij", rows, u)


def nearest(x: tf.Tensor, upscale: np.ndarray) -> tf.Tensor:
    factor = len(upscale) // x.shape[1]
    return tf.transpose(tf.repeat(tf.repeat(x, factor, 1), factor, 2), (0, 3, 1, 2))


def moments_in_bf16(patch: Patch) -> None:
    step = TfBackend.train_step

    def rounding(self: TfBackend, batch: Batch, lr: float) -> Value:
        result = step(self, batch, lr)
        for moments in (self._m, self._v):
            moments.assign(tf.cast(tf.cast(moments, tf.bfloat16), tf.float32))
        return result

    patch.setattr(TfBackend, "train_step", rounding)


def packed_and_kept(patch: Patch) -> None:
    step = TfBackend.train_step

    def keeping(self: TfBackend, batch: Batch, lr: float) -> Value:
        packed = self._inference_weights
        result = step(self, batch, lr)
        self._inference_weights = packed
        return result

    patch.setattr(TfBackend, "train_step", keeping)


def half_the_clip(patch: Patch) -> None:
    norm = tf.norm
    patch.setattr(tf, "norm", lambda gradient: norm(gradient[: gradient.shape[0] // 2]))


FAULTS = {
    "LayerNorm statistics in bf16": Fault(layer_norm_in_bf16, "precision, LayerNorm", ("bf16",)),
    "softmax sums in bf16": Fault(softmax_in_bf16, "precision, softmax", ("bf16",)),
    "tanh GELU": Fault(tanh_gelu, "precision, GELU", ("bf16",)),
    "loss in bf16": Fault(loss_in_bf16, "precision, loss", ("bf16",)),
    "resize in bf16 in the step only": Fault(resize_in_step(in_bf16), "precision, resize", ("bf16",)),
    "nearest resize in the step only": Fault(resize_in_step(nearest), "precision, resize", ("bf16",)),
    "moments kept in bf16": Fault(moments_in_bf16, "second step, second moments", ("fp32",)),
    "weights packed at first inference after loading and kept": Fault(
        packed_and_kept, "infer, train, infer, batch 1", ("bf16",)
    ),
    "batch 1 answered from a cache": Fault(cached_batch_1(TfBackend), "infer, train, infer, batch 1", ("fp32",)),
    "TF32 in attention": Fault(tf32_in_attention, "infer, train, infer, batch 1", ("fp32",)),
    "clip by half of the gradient's norm": Fault(half_the_clip, "second step, clip", ("fp32",)),
}


@pytest.mark.parametrize(("name", "precision"), cases(FAULTS))
def test_planted_fault_fails_the_check_meant_for_it(
    name: str, precision: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    fault.plant(monkeypatch)
    small = spec.changed(model=spec.model.changed(depth=1))
    backend = TfBackend(small, "cpu", precision, "xla")
    check = check_named(fault.fails, backend, small, precision)
    assert not check.passed, check
