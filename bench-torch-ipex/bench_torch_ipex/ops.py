"""How PyTorch computes the model's operators, by what the processor is.

PyTorch hands float32 products to MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN asks the processor
what it has. With AVX-512 on Intel's own MKL is the faster of the two, in the backward pass by far; with AVX2 alone oneDNN
is. docs/performance.md has figures.
"""

import os
import re
import tempfile
from functools import cache
from pathlib import Path
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


@cache
def prefers_mkl() -> bool:
    """Whether this is an Intel processor with AVX-512, as Linux tells; elsewhere PyTorch has no choice of libraries."""
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return intel and torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def has_amx() -> bool:
    """Whether the processor multiplies tiles of bfloat16."""
    return bool(torch.cpu._is_amx_tile_supported())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer x W^T + b: [..., K], [M, K] (or packed), [M] -> [..., M]."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], None)
    return result


@cache
def product_kernel(dtype: torch.dtype) -> str | None:
    """The kernel that oneDNN multiplies packed weights with, by its own log: brgemm:avx512_core_amx; None without oneDNN.

    That a processor has instructions does not mean that the system lets programs use them.
    """
    if not has_onednn(dtype):
        return None
    x = torch.zeros(64, 64, dtype=dtype)
    weight = pack(x, len(x))
    with tempfile.TemporaryFile() as log:
        stdout = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                product(x, weight)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        log.seek(0)
        text = log.read().decode(errors="replace")
    match = re.search(r"exec,cpu,(?:matmul|inner_product),([^,]+)", text)
    return match.group(1) if match else None


def pack(weight: Tensor, rows: int) -> Tensor:
    """The weight [M, K] of a product of so many rows, in the layout that oneDNN prefers for it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return packed


class _Product(torch.autograd.Function):
    """`product` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_rows, rows = gradient.flatten(0, -2), x.flatten(0, -2)  # [R, M], [R, K]
        return _input_gradient(gradient, weight), _weight_gradient(of_rows, rows), of_rows.sum(0)


def _input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """[..., M], [M, K] -> [..., K]; where MKL is the faster, oneDNN is slow at a transposed second operand."""
    return gradient @ weight if prefers_mkl() else product(gradient, weight.t())


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """[R, M], [R, K] -> [M, K]; oneDNN copies the transposed first operand of a float32 product: the smaller one here."""
    if x.dtype == torch.bfloat16:
        return gradient.t() @ x  # on oneDNN anyway, and without the copy
    return product(gradient.t(), x.t()) if gradient.shape[1] <= x.shape[1] else product(x.t(), gradient.t()).t()


def trains_on_onednn(dtype: torch.dtype) -> bool:
    """Whether linear layers of a training step go to oneDNN and not to where PyTorch sends them."""
    return has_onednn(dtype) and not (dtype == torch.float32 and prefers_mkl())


class Linear(nn.Linear):
    """nn.Linear, in training on oneDNN where that is faster; inference.py has its own."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if not (torch.is_grad_enabled() and trains_on_onednn(dtype)):
            return super().forward(x)
        return _Product.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))  # type: ignore[no-untyped-call]


class LayerNorm(nn.LayerNorm):
    """Over the last axis, as a float32 operator, whose gradients are sums in float32: [..., D] -> [..., D]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def attention(qkv: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D/H)) v: [B, N, 3, H, D/H] -> [B, N, H, D/H].

    In bfloat16 written out, as batched products on oneDNN, which are faster than PyTorch's flash kernel, but for
    inference on AMX.
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, D/H]
    if qkv.dtype != torch.bfloat16 or (has_amx() and not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores.softmax(-1) @ v).transpose(1, 2)  # PyTorch's softmax keeps its sums in float32


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, element by element."""
    return F.gelu(x)
