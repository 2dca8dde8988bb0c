import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from bench_mlx import cuda, ops

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8)])
def test_linear_is_mlxs_and_its_gradients_lie_as_the_parameters_do(shape):
    x, dy, weight, bias = (
        mx.random.normal(size, key=mx.random.key(i))
        for i, size in enumerate([shape, (*shape[:-1], 6), (6, 8), (6,)])
    )  # fmt: skip
    layer = nn.Linear(8, 6)

    def plain(x, weight, bias):
        layer.update({"weight": weight, "bias": bias})
        return layer(x)

    found, expected = (mx.vjp(function, [x, weight, bias], [dy]) for function in (ops.linear, plain))
    for own, mlxs in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        assert own.shape == mlxs.shape
        np.testing.assert_allclose(np.array(own), np.array(mlxs), rtol=0, atol=1e-5)
    assert memoryview(found[1][1]).c_contiguous


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_joined_pieces_lie_behind_one_another_in_rows(dtype):
    matrix = mx.random.normal((300, 70), key=mx.random.key(0)).astype(dtype)
    pieces = [matrix.T, matrix[7], matrix[:1, :1], matrix[1:290, 3:5]]
    joined = ops.join(pieces)
    assert joined.dtype == mx.float32
    expected = np.concatenate([np.array(piece.astype(mx.float32)).ravel() for piece in pieces])
    np.testing.assert_array_equal(np.array(joined), expected)


def test_the_layer_takes_that_gradient_where_gradients_are_taken(monkeypatch):
    calls = []
    monkeypatch.setattr(ops, "linear", lambda x, weight, bias: calls.append(x.shape) or x)
    layer, x = ops.Linear(8, 6), mx.ones((2, 8))
    layer(x)
    assert calls == []
    with ops.enable_grad():
        layer(x)
    assert calls == [(2, 8)]


def test_the_kernel_has_a_case_for_each_piece(monkeypatch):
    """What CUDA is asked for; that it does so the test above shows where there is CUDA."""
    asked = {}
    monkeypatch.setattr(mx.fast, "cuda_kernel", lambda **kernel: asked.update(kernel))
    cuda._kernel.cache_clear()
    cuda.join_kernel.__wrapped__((2, 5, 7))
    cuda._kernel.cache_clear()
    assert asked["input_names"] == ["piece0", "piece1", "piece2"]
    assert [line for line in asked["source"].splitlines() if line.startswith("case")] == [
        "case 0: copy(piece0, out + 0, 2); break;",
        "case 1: copy(piece1, out + 2, 5); break;",
        "case 2: copy(piece2, out + 7, 7); break;",
    ]


def test_gelu_is_exact_also_for_bf16():
    x = mx.linspace(-6, 6, 481).astype(mx.bfloat16)
    exact = np.array([v * 0.5 * (1 + mx.erf(mx.array(v / 2**0.5)).item()) for v in x.tolist()])
    # Rounding once, to the 8 bits of a bf16, leaves 2^-9; the tanh approximation and bf16 on the way are further off.
    np.testing.assert_allclose(np.array(ops.gelu(x).astype(mx.float32)), exact, rtol=2**-8, atol=1e-6)


def test_gelu_gradient():
    x = mx.linspace(-4, 4, 81)
    with ops.enable_grad():
        slope = np.array(mx.grad(lambda x: ops.gelu(x).sum())(x))
    density = np.exp(-(np.array(x) ** 2) / 2) / np.sqrt(2 * np.pi)
    expected = 0.5 * (1 + np.array(mx.erf(x / 2**0.5))) + np.array(x) * density
    np.testing.assert_allclose(slope, expected, rtol=0, atol=2e-6)


def test_attention_padded_for_the_fused_backward_pass_is_the_same(spec, monkeypatch):
    """Padded, it is MLX's own on a device without that pass; not padded, it is written out, but for inference."""
    m = spec.model
    qkv = mx.random.normal((3, m.tokens, 3, m.heads, m.dim // m.heads), key=mx.random.key(0))
    lengths = []
    real = mx.fast.scaled_dot_product_attention

    def watched(q, k, v, *, mask, **rest):
        lengths.append(q.shape[2])
        return real(q, k, v, mask=None if mask is None else mask.astype(q.dtype), **rest)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", watched)

    def both_passes():
        with ops.enable_grad():
            return mx.vjp(ops.attention, [qkv], [mx.ones((3, m.tokens, m.heads, m.dim // m.heads))])

    (plain,), (slope,) = both_passes()
    monkeypatch.setattr(ops, "has_fused_backward", lambda dtype: True)
    monkeypatch.setattr(ops, "FUSED_BATCH", 3)
    (padded,), (padded_slope,) = both_passes()
    ops.attention(qkv)
    assert lengths[-2:] == [ops.FUSED_TOKENS, m.tokens]
    np.testing.assert_allclose(np.array(padded), np.array(plain), rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.array(padded_slope), np.array(slope), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 3, 2, 8), (1, 33, 3, 3, 64)])
def test_attention_written_out_has_mlxs_values_and_gradients(shape):
    qkv = 2 * mx.random.normal(shape, key=mx.random.key(0))
    dx = mx.random.normal((*shape[:2], *shape[3:]), key=mx.random.key(1))
    found = mx.vjp(lambda qkv: ops.attention_with_scores(qkv)[0], [qkv], [dx])
    for own, mlxs in zip(found, mx.vjp(ops.attention, [qkv], [dx]), strict=True):
        np.testing.assert_allclose(np.array(own[0]), np.array(mlxs[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("images", [1, ops.FEW_IMAGES + 1])
def test_attention_of_few_images_and_of_more_is_the_same(images):
    qkv = mx.random.normal((images, 197, 3, 2, 64), key=mx.random.key(0)).astype(mx.bfloat16)
    q, k, v = np.array(qkv.astype(mx.float32)).transpose(2, 0, 3, 1, 4)
    scores = np.exp(q @ k.swapaxes(2, 3) / 8)
    expected = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(np.array(ops.attention(qkv).astype(mx.float32)), expected, rtol=0, atol=2e-2)


def test_attention_of_few_images_asks_for_no_more_memory_than_a_block_has():
    assert cuda.attends(mx.zeros((1, 197, 3, 6, 64), mx.bfloat16))
    assert not cuda.attends(mx.zeros((1, 400, 3, 6, 64), mx.bfloat16))
    assert not cuda.attends(mx.zeros((1, 197, 3, 6, 64)))


def test_the_fused_backward_pass_is_sought_in_bf16_on_cuda_alone(device):
    assert ops.has_fused_backward(mx.bfloat16) == (device == "cuda")
    assert not ops.has_fused_backward(mx.float32)


@pytest.mark.parametrize(
    ("node", "path"), [("ScaledDotProductAttentionVJP", "fused"), ("Matmul", "scores written to memory")]
)
def test_the_backward_pass_of_attention_is_read_off_the_graph(monkeypatch, node, path):
    monkeypatch.setattr(mx, "export_to_dot", lambda file, *arrays: file.write(f"{{ {node} }}"))
    assert ops.attention_backward((2, 5, 3, 2, 64), mx.float32) == path
