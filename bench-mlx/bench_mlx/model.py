"""DeiT-small in MLX, from uint8 pixels to logits.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names are timm's. How operators are computed is in ops.py.
"""

import mlx.core as mx
from mlx.core import array as Tensor
from mlx.nn import Module

from bench_mlx.ops import LayerNorm, Linear, attention, gelu
from shared_spec.workload.interpolation import interpolation_matrix
from shared_spec.workload.spec import ModelSpec, Spec


class Preprocess(Module):
    """Normalise and upscale: uint8 [B, S, S, 3] -> float32 [B, 3, I, I]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self._mean = mx.array(spec.data.mean).reshape(1, 3, 1, 1)  # no parameters: their names start with an underscore
        self._std = mx.array(spec.data.std).reshape(1, 3, 1, 1)
        self._upscale = mx.array(interpolation_matrix(spec.data.image_size, spec.model.image_size))  # [I, S]

    def __call__(self, images: Tensor) -> Tensor:
        x = images.transpose(0, 3, 1, 2).astype(mx.float32) / 255  # [B, 3, S, S]
        x = (x - self._mean) / self._std
        return self._upscale @ x @ self._upscale.T  # [B, 3, I, I]


class PatchEmbed(Module):
    """Cut into patches and project each: [B, 3, I, I] -> [B, G*G, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.patch_size = m.patch_size
        self.proj = Linear(m.channels * m.patch_size**2, m.dim)

    def __call__(self, x: Tensor) -> Tensor:
        b, c, i, p = *x.shape[:3], self.patch_size
        x = x.reshape(b, c, i // p, p, i // p, p).transpose(0, 2, 4, 1, 3, 5)  # [B, G, G, 3, P, P]
        return self.proj(x.reshape(b, -1, c * p * p))


class Attention(Module):
    """Multi-head self-attention: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.heads = m.heads
        self.qkv = Linear(m.dim, 3 * m.dim)
        self.proj = Linear(m.dim, m.dim)

    def __call__(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        return self.proj(attention(qkv).reshape(b, n, d))


class Mlp(Module):
    """Two layers with exact GELU between them: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.fc1 = Linear(m.dim, m.mlp_dim)
        self.fc2 = Linear(m.mlp_dim, m.dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(Module):
    """Pre-norm transformer block: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.norm1 = LayerNorm(m.dim, m.layer_norm_eps)
        self.attn = Attention(m)
        self.norm2 = LayerNorm(m.dim, m.layer_norm_eps)
        self.mlp = Mlp(m)

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT(Module):
    """The whole model: uint8 [B, S, S, 3] -> logits [B, C]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        m = spec.model
        self.preprocess = Preprocess(spec)
        self.patch_embed = PatchEmbed(m)
        self.cls_token = mx.zeros((1, 1, m.dim))
        self.pos_embed = mx.zeros((1, m.tokens, m.dim))
        self.blocks = [Block(m) for _ in range(m.depth)]
        self.norm = LayerNorm(m.dim, m.layer_norm_eps)
        self.head = Linear(m.dim, m.classes)

    def __call__(self, images: Tensor) -> Tensor:
        x = self.preprocess(images).astype(self.cls_token.dtype)  # the parameters' type is the model's precision
        x = self.patch_embed(x)  # [B, G*G, D]
        cls = mx.broadcast_to(self.cls_token, (x.shape[0], *self.cls_token.shape[1:]))
        x = mx.concatenate([cls, x], 1) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
