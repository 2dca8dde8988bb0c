"""Faults planted into this platform's own operators, model and backend: each fails the check meant for it."""

import mlx.core as mx
import pytest
from mlx import nn

from bench_mlx import backend as module
from bench_mlx import model, ops
from bench_mlx.backend import MlxBackend
from shared_spec.dev.planted_faults import Fault, cached_batch_1, cases, late_rate, round_to
from shared_spec.dev.testing import check_named


def layer_norm_in_bf16(patch):
    def call(self, x):
        z = x.astype(mx.bfloat16)
        centred = z - z.mean(-1, keepdims=True)
        return (centred * mx.rsqrt((centred * centred).mean(-1, keepdims=True) + self.eps)).astype(x.dtype)

    patch.setattr(ops.LayerNorm, "__call__", lambda self, x: call(self, x) * self.weight + self.bias)


def softmax_in_bf16(patch):
    def attention(qkv):
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        exponentials = mx.exp(scores - scores.max(-1, keepdims=True))
        sums = exponentials.sum(-1, keepdims=True).astype(mx.bfloat16).astype(scores.dtype)
        return (exponentials / sums @ v).transpose(0, 2, 1, 3)

    patch.setattr(model, "attention", attention)


def tf32_in_attention(patch):
    attention = model.attention
    patch.setattr(model, "attention", lambda qkv: attention(round_to(qkv, 11)))


def tanh_gelu(patch):
    patch.setattr(model, "gelu", lambda x: nn.gelu_approx(x.astype(mx.float32)).astype(x.dtype))


def loss_in_bf16(patch):
    entropy = nn.losses.cross_entropy
    patch.setattr(
        nn.losses, "cross_entropy", lambda x, t, **how: entropy(x.astype(mx.bfloat16), t, **how).astype(mx.float32)
    )


def resize_in_step(change):
    """Another resize where gradients are taken, and the specified one in `preprocess` and `infer`."""

    def plant(patch):
        whole = model.Preprocess.__call__

        def call(self, images):
            if not ops.grad_enabled():
                return whole(self, images)
            x = (images.transpose(0, 3, 1, 2).astype(mx.float32) / 255 - self._mean) / self._std
            return change(x, self._upscale)

        patch.setattr(model.Preprocess, "__call__", call)

    return plant


def in_bf16(x, upscale):
    u = upscale.astype(mx.bfloat16)
    return (u @ x.astype(mx.bfloat16) @ u.T).astype(mx.float32)


def nearest(x, upscale):
    factor = upscale.shape[0] // upscale.shape[1]
    return mx.repeat(mx.repeat(x, factor, 2), factor, 3)


def moments_in_bf16(patch):
    adamw = MlxBackend._adamw

    def rounding(self, gradient, lr):
        adamw(self, gradient, lr)
        low = {kind: self._state[kind].astype(mx.bfloat16).astype(mx.float32) for kind in ("m", "v")}
        self._state.update(low)

    patch.setattr(MlxBackend, "_adamw", rounding)


def packed_and_kept(patch):
    step = MlxBackend.train_step

    def keeping(self, batch, lr):
        packed = dict(self._inference_params)
        result = step(self, batch, lr)
        self._inference_params.update(packed)
        return result

    patch.setattr(MlxBackend, "train_step", keeping)


def memoised_batch(patch):
    infer, memo = MlxBackend.infer, {}
    patch.setattr(MlxBackend, "infer", lambda self, batch: memo.setdefault(id(batch), infer(self, batch)))


def six_bit_operands(patch):
    def call(self, x):
        low = round_to(x.astype(mx.float32), 6).astype(x.dtype)
        return low @ self.weight.T + self.bias

    patch.setattr(ops.Linear, "__call__", call)


def half_the_clip(patch):
    norm = module._norm
    patch.setattr(module, "_norm", lambda gradient: norm(gradient[: gradient.size // 2]))


def no_decay(patch):
    monkey = MlxBackend._adamw

    def adamw(self, gradient, lr):
        whole, self.spec = self.spec, self.spec.changed(optimizer=self.spec.optimizer.changed(weight_decay=0.0))
        monkey(self, gradient, lr)
        self.spec = whole

    patch.setattr(MlxBackend, "_adamw", adamw)


FAULTS = {
    "LayerNorm statistics in bf16": Fault(layer_norm_in_bf16, "precision, LayerNorm"),
    "softmax sums in bf16": Fault(softmax_in_bf16, "precision, softmax"),
    "tanh GELU": Fault(tanh_gelu, "precision, GELU"),
    "loss in bf16": Fault(loss_in_bf16, "precision, loss"),
    "resize in bf16 in the step only": Fault(resize_in_step(in_bf16), "precision, resize"),
    "nearest resize in the step only": Fault(resize_in_step(nearest), "precision, resize"),
    "moments kept in bf16": Fault(moments_in_bf16, "second step, second moments"),
    "weights packed at first inference after loading and kept": Fault(packed_and_kept, "infer, train, infer, batch 4"),
    "batch 1 answered from a cache": Fault(cached_batch_1(MlxBackend), "infer, train, infer, batch 1"),
    "memoised resident batch": Fault(memoised_batch, "infer, train, infer, batch 4"),
    "6-bit operands": Fault(six_bit_operands, "precision, inference"),
    "TF32 in attention": Fault(tf32_in_attention, "infer, train, infer, batch 4", ("fp32",)),
    "clip by half of the gradient's norm": Fault(half_the_clip, "second step, clip"),
    "no decay": Fault(no_decay, "second step, parameters"),
    "learning rate one step late": Fault(late_rate(MlxBackend), "second step, parameters"),
}


@pytest.mark.parametrize(("name", "precision"), cases(FAULTS))
def test_planted_fault_fails_the_check_meant_for_it(name, precision, spec, monkeypatch):
    fault = FAULTS[name]
    fault.plant(monkeypatch)
    mx.set_default_device(mx.cpu)
    backend = MlxBackend(spec, "cpu", precision, "mlx")
    check = check_named(fault.fails, backend, spec, precision)
    assert not check.passed, check
