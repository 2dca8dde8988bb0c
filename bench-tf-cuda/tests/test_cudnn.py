"""The fused attention's wiring, with the two custom calls computed by TensorFlow; cuDNN itself needs a GPU."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda import cudnn, ops
from bench_tf_cuda.backend import TfBackend
from shared_spec.workload.spec import Spec

SHAPE = (2, 5, 3, 4)  # B, N, H, D


def dot(left: tf.Tensor, right: tf.Tensor, numbers: dict[str, list[str]]) -> np.ndarray:
    """XLA's general dot product: batch axes first, then the free axes of both."""

    def moved(x: tf.Tensor, side: str, last: bool) -> np.ndarray:
        batch, contracted = (
            [int(axis) for axis in numbers[f"{side}_{kind}_dimensions"]] for kind in ("batch", "contracting")
        )
        free = [axis for axis in range(4) if axis not in batch + contracted]
        return np.transpose(np.asarray(x, np.float64), batch + (free + contracted if last else contracted + free))

    return moved(left, "lhs", True) @ moved(right, "rhs", False)


def call_module(args: Sequence[tf.Tensor], module: str, **rest: Any) -> list[Any]:
    """What cuDNN computes from the dimension numbers it is given; gradients and output as [B, H, N, D]."""
    found = re.search(r'custom_call @"(.*?)".*backend_config = "(.*?)"', module, re.DOTALL)
    assert found is not None
    target, backend_config = found[1], found[2].replace("\\22", '"')
    config = json.loads(backend_config)["cudnn_fmha_backend_config"]
    numbers = {key.removesuffix("_dot_dimension_numbers"): v for key, v in config.items() if key.startswith("bmm")}
    scale, scratch = config["fmha_scale"], np.zeros(0, np.uint8)
    assert [int(size) for size in config["intermediate_tensor_shape"]["dimensions"]] == [2, 3, 5, 5]
    if target == "__cudnn$fmhaSoftmax":
        q, k, v = args
        scores = scale * dot(q, k, numbers["bmm1"])
        logs = np.log(np.exp(scores).sum(-1))
        results = [dot(np.exp(scores - logs[..., None]), v, numbers["bmm2"]), logs]
    else:
        q, k, v, logs, dy, y = args
        shares = np.exp(scale * dot(q, k, cudnn._PRODUCTS[cudnn.FORWARD]["bmm1"]) - np.asarray(logs)[..., None])
        d_shares = dot(dy, v, numbers["bmm2_grad_gemm2"])
        rows = np.einsum("bnhd,bnhd->bhn", np.asarray(dy, np.float64), np.asarray(y, np.float64))
        d_scores = scale * shares * (d_shares - rows[..., None])
        d_k, d_v = dot(d_scores, q, numbers["bmm1_grad_gemm1"]), dot(shares, dy, numbers["bmm2_grad_gemm1"])
        results = [dot(d_scores, k, numbers["bmm1_grad_gemm2"]), d_k, d_v]
    shapes, types = rest["Sout"], rest["Tout"]
    for result, shape in zip([*results, scratch], shapes, strict=True):
        assert list(result.shape) == shape.as_list()
    return [tf.cast(result, dtype) for result, dtype in zip([*results, scratch], types, strict=True)]


def test_output_and_gradients_are_those_of_products_and_a_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn.gen_xla_ops, "xla_call_module", call_module)
    rng = np.random.default_rng(0)
    qkv = tf.constant(rng.standard_normal((*SHAPE[:2], 3, *SHAPE[2:]), np.float32))
    weights = tf.constant(rng.standard_normal(SHAPE, np.float32))
    found = []
    for function in (cudnn.attention, ops.unfused_attention):
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            y = function(qkv)
            loss = tf.reduce_sum(weights * y)
        found.append([y, tape.gradient(loss, qkv)])
    for fused, single in zip(*found, strict=True):
        np.testing.assert_allclose(fused, single, atol=1e-5)


def test_xla_is_told_that_tokens_lie_outside_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "_PLATFORMS", ["CPU"])  # to be translated here, if not compiled
    qkv = tf.zeros((*SHAPE[:2], 3, *SHAPE[2:]), tf.bfloat16)

    def both(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = cudnn.attention(x)
        return tape.gradient(y, x)

    hlo = tf.function(both, jit_compile=True, autograph=False).experimental_get_compiler_ir(qkv)(stage="hlo")
    calls = [line.split(" custom-call(")[0] for line in hlo.splitlines() if " custom-call(" in line]
    assert [re.findall(r"bf16\S*", call) for call in calls] == [
        ["bf16[2,3,5,4]{3,1,2,0},"],
        ["bf16[2,3,5,4]{3,1,2,0},"] * 3,
    ]


def test_without_a_gpu_it_is_refused_and_done_otherwise(spec: Spec) -> None:
    m = spec.model
    assert cudnn.refusal(m.tokens, m.heads, m.dim // m.heads)
    assert cudnn.version() is None
    assert TfBackend(spec, "cpu", "bf16", "xla").describe()["details"]["attention"] == "products and softmax"


def test_a_refusal_is_in_the_result(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TfBackend(spec, "cpu", "bf16", "xla")
    monkeypatch.setattr(ops, "has_gpu", lambda: True)
    monkeypatch.setattr(cudnn, "refusal", lambda *sizes: "too old")
    assert backend.describe()["details"]["attention"].endswith("is not to be had: too old")
    images = tf.zeros((1, 32, 32, 3), tf.uint8)
    program = backend._compiled_forward.experimental_get_compiler_ir(images, *backend._cast_weights())
    assert "custom-call" not in program(stage="hlo")


@pytest.mark.parametrize(("dtype", "fused"), [(tf.bfloat16, True), (tf.float32, False)])
def test_attention_is_fused_where_cudnn_serves(monkeypatch: pytest.MonkeyPatch, dtype: tf.DType, fused: bool) -> None:
    qkv = tf.zeros((*SHAPE[:2], 3, *SHAPE[2:]), dtype)
    sizes: list[tuple[int, ...]] = []
    monkeypatch.setattr(ops, "has_gpu", lambda: True)
    monkeypatch.setattr(cudnn, "refusal", lambda *asked: sizes.append(asked))
    monkeypatch.setattr(cudnn, "attention", lambda qkv: qkv)
    assert (ops.attention(qkv) is qkv) is fused
    assert sizes == [SHAPE[1:]] * fused
