import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from bench_mlx.model import DeiT, PatchEmbed, Preprocess
from shared_spec.workload import params
from shared_spec.workload.interpolation import interpolation_matrix

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
