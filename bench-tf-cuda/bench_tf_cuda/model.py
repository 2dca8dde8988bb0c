"""DeiT-small in TensorFlow, from uint8 pixels to logits.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names are timm's. How operators are computed is in ops.py.
"""

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from bench_tf_cuda.ops import Conv2d, LayerNorm, Linear, Module, attention, gelu
from shared_spec.workload.interpolation import interpolation_matrix
from shared_spec.workload.spec import ModelSpec, Spec


class Preprocess(Module):
    """Normalise and upscale: uint8 [B, S, S, 3] -> float32 [B, 3, I, I]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self._mean = np.array(spec.data.mean, np.float32)
        self._std = np.array(spec.data.std, np.float32)
        self._upscale = interpolation_matrix(spec.data.image_size, spec.model.image_size)  # [I, S]

    def __call__(self, images: Tensor) -> Tensor:
        x = tf.cast(images, tf.float32) / 255  # [B, S, S, 3]
        x = (x - self._mean) / self._std
        return tf.einsum("is,bstc,jt->bcij", self._upscale, x, self._upscale)  # [B, 3, I, I]


class PatchEmbed(Module):
    """Cut into patches and project each: [B, 3, I, I] -> [B, G*G, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.proj = Conv2d(m.channels, m.dim, m.patch_size)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.proj(x)  # [B, G, G, D]
        return tf.reshape(x, (x.shape[0], -1, x.shape[3]))


class Attention(Module):
    """Multi-head self-attention: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.heads = m.heads
        self.qkv = Linear(m.dim, 3 * m.dim)
        self.proj = Linear(m.dim, m.dim)

    def __call__(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = tf.reshape(self.qkv(x), (b, n, 3, self.heads, d // self.heads))
        return self.proj(tf.reshape(attention(qkv), (b, n, d)))


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
        self.cls_token = tf.TensorSpec((1, 1, m.dim))
        self.pos_embed = tf.TensorSpec((1, m.tokens, m.dim))
        self.blocks = [Block(m) for _ in range(m.depth)]
        self.norm = LayerNorm(m.dim, m.layer_norm_eps)
        self.head = Linear(m.dim, m.classes)

    def __call__(self, images: Tensor) -> Tensor:
        x = tf.cast(self.preprocess(images), self.cls_token.dtype)  # the parameters' type is the model's precision
        x = self.patch_embed(x)  # [B, G*G, D]
        cls = tf.broadcast_to(self.cls_token, (x.shape[0], *self.cls_token.shape[1:]))
        x = tf.concat([cls, x], 1) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
