"""The linear layer on oneDNN and the written-out attention against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from bench_torch_ipex import ops

needs_onednn = pytest.mark.skipif(not ops.has_onednn(torch.float32), reason="this PyTorch has no oneDNN")
SHAPES = [(24, 16), (16, 24), (16, 16)]
"""Both orders of the two sides: the gradient of the weight transposes the smaller one."""


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0))


@needs_onednn
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_values_and_gradients_are_those_of_a_linear_layer(rows: torch.Tensor, inputs: int, outputs: int) -> None:
    layer = ops.Linear(inputs, outputs)
    x, y = (rows[..., :inputs].clone().requires_grad_() for _ in range(2))
    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    layer(x).square().sum().backward()
    F.linear(y, weight, bias).square().sum().backward()
    for ours, theirs in ((x, y), (layer.weight, weight), (layer.bias, bias)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_packed_weights_follow_a_change(rows: torch.Tensor) -> None:
    layer = ops.Linear(24, 16)
    with torch.inference_mode():
        before = layer(rows)
    with torch.no_grad():
        layer.weight.mul_(2)
    with torch.inference_mode():
        torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias))
        assert (layer(rows) - before).abs().max() > 0.1
        torch.testing.assert_close(layer(rows[:1]), layer(rows)[:1])  # another number of rows is packed anew


def test_without_onednn_the_layer_is_pytorchs(rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "has_onednn", lambda dtype: False)
    monkeypatch.setattr(ops, "product", None)
    layer = ops.Linear(24, 16)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias))


def test_attention_in_bf16_is_attention() -> None:
    qkv = torch.randn(2, 9, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(ops.attention(qkv), expected)
    written_out = ops.attention(qkv.bfloat16())
    assert written_out.dtype == torch.bfloat16
    torch.testing.assert_close(written_out.float(), expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(("has_bf16", "seen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_layer_norm_asks_onednn_for_bfloat16_only_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, rows: torch.Tensor, has_bf16: bool, seen: torch.dtype
) -> None:
    asked: list[torch.dtype] = []

    def forward(layer: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        asked.append(x.dtype)
        return x

    monkeypatch.setattr(torch.nn.LayerNorm, "forward", forward)
    monkeypatch.setattr(ops, "has_onednn", lambda dtype: has_bf16)
    with torch.inference_mode():
        assert ops.LayerNorm(24)(rows.bfloat16()).dtype == torch.bfloat16
    assert asked == [seen]
