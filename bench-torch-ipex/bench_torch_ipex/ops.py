"""How PyTorch computes the model's operators: linear layers and attention on oneDNN.

PyTorch hands float32 products to MKL, which keeps to AVX2 on processors that are not Intel's. oneDNN asks the processor
what it has. docs/performance.md has the figures.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type here: PyTorch for macOS has no oneDNN, and old CPUs no bfloat16 in it."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer x W^T + b: [..., K], [M, K] (or packed), [M] -> [..., M]."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], None)
    return result


class _Product(torch.autograd.Function):
    """`product` with gradients, all three products of a linear layer on oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_rows, rows = gradient.flatten(0, -2), x.flatten(0, -2)  # [R, M], [R, K]
        return product(gradient, weight.t()), _weight_gradient(of_rows, rows), of_rows.sum(0)


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """[R, M], [R, K] -> [M, K]; oneDNN copies the transposed first operand of a float32 product: the smaller one here."""
    if x.dtype == torch.bfloat16:
        return gradient.t() @ x  # on oneDNN anyway, and without the copy
    return product(gradient.t(), x.t()) if gradient.shape[1] <= x.shape[1] else product(x.t(), gradient.t()).t()


class Linear(nn.Linear):
    """nn.Linear on oneDNN; without gradients the weight is packed once for as long as it and the shapes stay."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self._packed_for: Any = None
        self._packed: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if not has_onednn(dtype):
            return super().forward(x)
        if torch.is_grad_enabled():
            return _Product.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))  # type: ignore[no-untyped-call]
        return product(x.to(dtype), *self._pack(dtype, x.shape[:-1].numel()))

    def _pack(self, dtype: torch.dtype, rows: int) -> tuple[Tensor, Tensor]:
        """Weight, in the layout that oneDNN prefers for a product with this many rows, and bias."""
        key = (self.weight._version, self.bias._version, dtype, rows)
        if self._packed is None or self._packed_for != key:
            weight, bias = self.weight.detach().to(dtype), self.bias.detach().to(dtype)
            self._packed_for, self._packed = key, (torch.ops.mkldnn._reorder_linear_weight(weight, rows), bias)
        return self._packed


class LayerNorm(nn.LayerNorm):
    """Over the last axis, computed in float32: [..., D] -> [..., D].

    In training it is a float32 operator, whose gradients are sums in float32. So too in inference on CPUs where oneDNN
    has no bfloat16: PyTorch asks it all the same, and it raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not has_onednn(x.dtype):
            return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


def attention(qkv: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D/H)) v: [B, N, 3, H, D/H] -> [B, N, H, D/H].

    In bfloat16 written out, as batched products on oneDNN, which are faster than PyTorch's flash kernel.
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, D/H]
    if qkv.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores.softmax(-1) @ v).transpose(1, 2)  # PyTorch's softmax keeps its sums in float32


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, element by element."""
    return F.gelu(x)
