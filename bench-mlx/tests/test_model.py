import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from bench_mlx import model
from bench_mlx.model import Attention, DeiT, PatchEmbed, Preprocess, gelu
from shared_spec.workload import params
from shared_spec.workload.preprocessing import interpolation_matrix

pytestmark = pytest.mark.usefixtures("device")


def test_parameter_names_are_timms(spec):
    assert {name for name, _ in tree_flatten(DeiT(spec).parameters())} == set(params.shapes(spec))


def test_preprocess_normalises_and_upscales(spec, host_batch):
    normalised = (host_batch.images / 255.0 - spec.data.mean) / spec.data.std
    upscale = interpolation_matrix(32, spec.model.image_size).astype(np.float64)
    expected = np.einsum("is,bstc,jt->bcij", upscale, normalised, upscale)
    actual = np.array(Preprocess(spec)(mx.array(host_batch.images)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_patch_embedding_is_the_convolution_that_timm_does(spec):
    m = spec.model
    random = np.random.default_rng(2)
    x = random.normal(size=(2, 3, m.image_size, m.image_size)).astype(np.float32)
    kernel = random.normal(size=(m.dim, 3, m.patch_size, m.patch_size)).astype(np.float32)
    embed = PatchEmbed(m)
    embed.proj.weight, embed.proj.bias = mx.array(kernel.reshape(m.dim, -1)), mx.zeros(m.dim)
    patches = x.reshape(2, 3, m.grid, m.patch_size, m.grid, m.patch_size)
    expected = np.einsum("bcgphq,dcpq->bghd", patches, kernel).reshape(2, -1, m.dim)
    np.testing.assert_allclose(np.array(embed(mx.array(x))), expected, rtol=0, atol=2e-4)


def test_gelu_is_exact_also_for_bf16():
    x = mx.linspace(-6, 6, 481).astype(mx.bfloat16)
    exact = np.array([v * 0.5 * (1 + mx.erf(mx.array(v / 2**0.5)).item()) for v in x.tolist()])
    # Rounding once, to the 8 bits of a bf16, leaves 2^-9; the tanh approximation and bf16 on the way are further off.
    np.testing.assert_allclose(np.array(gelu(x).astype(mx.float32)), exact, rtol=2**-8, atol=1e-6)


def test_gelu_gradient():
    x = mx.linspace(-4, 4, 81)
    slope = np.array(mx.grad(lambda x: gelu(x).sum())(x))
    density = np.exp(-(np.array(x) ** 2) / 2) / np.sqrt(2 * np.pi)
    expected = 0.5 * (1 + np.array(mx.erf(x / 2**0.5))) + np.array(x) * density
    np.testing.assert_allclose(slope, expected, rtol=0, atol=2e-6)


def test_attention_padded_for_the_fused_backward_pass_is_the_same(spec, monkeypatch):
    """On a device without that pass this is MLX's own, over the padded tokens."""
    tokens = mx.random.normal((3, spec.model.tokens, spec.model.dim), key=mx.random.key(0))
    attention = Attention(spec.model)
    padded_lengths = []
    real = mx.fast.scaled_dot_product_attention

    def watched(q, k, v, *, mask, **rest):
        padded_lengths.append(q.shape[2])
        return real(q, k, v, mask=None if mask is None else mask.astype(q.dtype), **rest)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", watched)

    def both_passes():
        return mx.vjp(attention, [tokens], [mx.ones_like(tokens)])

    (plain,), (slope,) = both_passes()
    monkeypatch.setattr(model, "has_fused_backward", lambda dtype: True)
    monkeypatch.setattr(model, "FUSED_BATCH", 3)
    (padded,), (padded_slope,) = both_passes()
    attention.eval()
    attention(tokens)
    assert padded_lengths == [spec.model.tokens, model.FUSED_TOKENS, spec.model.tokens]
    np.testing.assert_allclose(np.array(padded), np.array(plain), rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.array(padded_slope), np.array(slope), rtol=0, atol=1e-5)


def test_the_fused_backward_pass_is_sought_in_bf16_on_cuda_alone(device):
    assert model.has_fused_backward(mx.bfloat16) == (device == "cuda")
    assert not model.has_fused_backward(mx.float32)
