import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from bench_mlx import ops

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


def test_the_kernel_has_a_case_for_each_piece(monkeypatch):
    """What CUDA is asked for; that it does so the test above shows where there is CUDA."""
    asked = {}
    monkeypatch.setattr(mx.fast, "cuda_kernel", lambda **kernel: asked.update(kernel))
    ops._join_kernel.__wrapped__((2, 5, 7))
    assert asked["input_names"] == ["piece0", "piece1", "piece2"]
    assert [line for line in asked["source"].splitlines() if line.startswith("case")] == [
        "case 0: copy(piece0, out + 0, 2); break;",
        "case 1: copy(piece1, out + 2, 5); break;",
        "case 2: copy(piece2, out + 7, 7); break;",
    ]
