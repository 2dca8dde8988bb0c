"""The linear layer on oneDNN and the written-out attention against PyTorch's own."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("GenuineIntel", "AVX512", True),
        ("GenuineIntel", "AVX2", False),
        ("AuthenticAMD", "AVX512", False),
        (None, "DEFAULT", False),
    ],
)
def test_mkl_is_for_intels_processors_with_avx512(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str | None, capability: str, expected: bool
) -> None:
    if vendor:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(ops, "Path", lambda path: tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert ops.prefers_mkl.__wrapped__() is expected


@needs_onednn
@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_to_a_gradient_agree(monkeypatch: pytest.MonkeyPatch, mkl: bool, dtype: torch.dtype) -> None:
    """Which library multiplies is a matter of the processor, what comes of it is not."""
    monkeypatch.setattr(ops, "prefers_mkl", lambda: mkl)
    generator = torch.Generator().manual_seed(1)
    gradient, weight = (torch.randn(*size, generator=generator).to(dtype) for size in ((3, 5, 16), (16, 24)))
    exact = gradient.double() @ weight.double()
    torch.testing.assert_close(
        ops._input_gradient(gradient, weight).double(), exact, rtol=0.02, atol=1e-4 if dtype == torch.float32 else 0.05
    )
    assert ops.trains_on_onednn(dtype) == (dtype == torch.bfloat16 or not mkl)


def test_without_onednn_the_layer_is_pytorchs(rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "has_onednn", lambda dtype: False)
    monkeypatch.setattr(ops, "product", None)
    layer = ops.Linear(24, 16)
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias))


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_attention_in_bf16_is_attention(monkeypatch: pytest.MonkeyPatch, amx: bool, training: bool) -> None:
    monkeypatch.setattr(ops, "has_amx", lambda: amx)
    qkv = torch.randn(2, 9, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(ops.attention(qkv), expected)
    with torch.inference_mode(not training):
        mixed = ops.attention(qkv.bfloat16())
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.03, atol=0.03)


def test_layer_norm_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch, rows: torch.Tensor) -> None:
    asked: list[torch.dtype] = []
    own = torch.nn.LayerNorm.forward
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda layer, x: asked.append(x.dtype) or own(layer, x))
    assert ops.LayerNorm(24)(rows.bfloat16()).dtype == torch.bfloat16
    with torch.inference_mode():
        ops.LayerNorm(24)(rows.bfloat16())
    assert asked == [torch.float32] * 2
