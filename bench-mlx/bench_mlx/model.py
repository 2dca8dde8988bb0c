"""DeiT-small in MLX, from uint8 pixels to logits.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names are timm's, and so are the layouts, except that
the patch embedding is kept as the matrix [D, 3*P*P] that it is.
"""

import math
from functools import cache

import mlx.core as mx
import mlx.nn as nn

from bench_mlx.ops import linear, on_cuda
from shared_spec.workload.preprocessing import interpolation_matrix
from shared_spec.workload.spec import ModelSpec, Spec


class Preprocess(nn.Module):
    """Normalise and upscale: uint8 [B, S, S, 3] -> float32 [B, 3, I, I]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        # MLX takes arrays whose name starts with an underscore for constants, not for parameters.
        self._mean = mx.array(spec.data.mean).reshape(1, 3, 1, 1)
        self._std = mx.array(spec.data.std).reshape(1, 3, 1, 1)
        self._upscale = mx.array(interpolation_matrix(spec.data.image_size, spec.model.image_size))  # [I, S]

    def __call__(self, images: mx.array) -> mx.array:
        x = images.transpose(0, 3, 1, 2).astype(mx.float32) / 255  # [B, 3, S, S]
        x = (x - self._mean) / self._std
        return self._upscale @ x @ self._upscale.T  # [B, 3, I, I]


class Linear(nn.Linear):
    """x W^T + b over the last axis: [..., in] -> [..., out]; in training with a gradient of this project's."""

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = linear(x, self.weight, self.bias) if self.training else super().__call__(x)
        return y


class PatchEmbed(nn.Module):
    """Cut into patches and project each: [B, 3, I, I] -> [B, G*G, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.patch_size = m.patch_size
        self.proj = Linear(m.channels * m.patch_size**2, m.dim)

    def __call__(self, x: mx.array) -> mx.array:
        b, c, i, p = *x.shape[:3], self.patch_size
        x = x.reshape(b, c, i // p, p, i // p, p).transpose(0, 2, 4, 1, 3, 5)  # [B, G, G, 3, P, P]
        return self.proj(x.reshape(b, -1, c * p * p))


FUSED_TOKENS = 128
"""On CUDA, MLX's attention has a fused backward pass for multiples of so many tokens alone; it writes scores to memory
otherwise, and the backward pass takes twelve times as long as the forward."""
FUSED_BATCH = 96
"""From this batch on it pays. One H100: batch 256 takes 43 ms a step with it and 54 without, but batch 32 takes 14 and
11, since it costs the host more to dispatch, and small batches wait for the host."""


def has_fused_backward(dtype: mx.Dtype) -> bool:
    """Whether cuDNN's backward pass can serve attention: on CUDA, in bfloat16."""
    return bool(dtype == mx.bfloat16 and on_cuda())


@cache
def _mask(tokens: int, padding: int) -> mx.array:
    """What is added to scores [N, N] so that softmax leaves out the last `padding` keys."""
    row = [0.0] * tokens + [-math.inf] * padding
    return mx.array([row] * len(row), mx.bfloat16)


class Attention(nn.Module):
    """Multi-head self-attention: [B, N, D] -> [B, N, D].

    In training the tokens are padded where that makes the backward pass fused, and the mask takes them out again.
    """

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.heads = m.heads
        self.qkv = Linear(m.dim, 3 * m.dim)
        self.proj = Linear(m.dim, m.dim)

    def __call__(self, x: mx.array) -> mx.array:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        mask, padding = None, -n % FUSED_TOKENS
        if padding and self.training and b >= FUSED_BATCH and has_fused_backward(x.dtype):
            qkv, mask = mx.pad(qkv, [(0, 0), (0, padding), (0, 0), (0, 0), (0, 0)]), _mask(n, padding)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [B, H, N, D/H]
        x = mx.fast.scaled_dot_product_attention(q, k, v, scale=(d // self.heads) ** -0.5, mask=mask)[:, :, :n]
        return self.proj(x.transpose(0, 2, 1, 3).reshape(b, n, d))


@mx.checkpoint
def gelu(x: mx.array) -> mx.array:
    """Exact GELU, computed in float32, element by element.

    mx.checkpoint keeps x alone for the backward pass and computes the rest again there: forward and backward are
    one fused kernel each. Without it the compiler splits the forward into three kernels, in order to keep two more
    activations of the size of x.
    """
    return nn.gelu(x.astype(mx.float32)).astype(x.dtype)


class Mlp(nn.Module):
    """Two layers with exact GELU between them: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.fc1 = Linear(m.dim, m.mlp_dim)
        self.fc2 = Linear(m.mlp_dim, m.dim)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(m.dim, m.layer_norm_eps)
        self.attn = Attention(m)
        self.norm2 = nn.LayerNorm(m.dim, m.layer_norm_eps)
        self.mlp = Mlp(m)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT(nn.Module):
    """The whole model: uint8 [B, S, S, 3] -> logits [B, C]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        m = spec.model
        self.preprocess = Preprocess(spec)
        self.patch_embed = PatchEmbed(m)
        self.cls_token = mx.zeros((1, 1, m.dim))
        self.pos_embed = mx.zeros((1, m.tokens, m.dim))
        self.blocks = [Block(m) for _ in range(m.depth)]
        self.norm = nn.LayerNorm(m.dim, m.layer_norm_eps)
        self.head = Linear(m.dim, m.classes)

    def __call__(self, images: mx.array) -> mx.array:
        x = self.preprocess(images).astype(self.cls_token.dtype)  # the parameters' type is the model's precision
        x = self.patch_embed(x)  # [B, G*G, D]
        cls = mx.broadcast_to(self.cls_token, (len(x), *self.cls_token.shape[1:]))
        x = mx.concatenate([cls, x], 1) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
