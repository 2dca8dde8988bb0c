"""DeiT-small in TensorFlow, from uint8 pixels to logits.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names and layouts are timm's.

The modules hold no variables: they are built over tensors, by canonical name, while the training step is traced.
Matrix products are einsums: with TF32 off, tf.matmul also asks XLA for the highest precision in bfloat16.
"""

import math
from collections.abc import Mapping

import tensorflow as tf

from bench_tf_cuda import cudnn
from bench_tf_cuda.ops import gelu, layer_norm
from shared_spec.workload.preprocessing import interpolation_matrix
from shared_spec.workload.spec import ModelSpec, Spec

Weights = Mapping[str, tf.Tensor]


class Linear:
    """x W^T + b over the last axis: [..., in] -> [..., out].

    Over rows, because XLA turns the operands of a product over several axes round to make them rows: on a CPU that took
    a third of a training step.
    """

    def __init__(self, weights: Weights, name: str) -> None:
        self.weight, self.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]  # [out, in], [out]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(x, (-1, x.shape[-1]))
        return tf.reshape(tf.einsum("ri,oi->ro", rows, self.weight) + self.bias, (*x.shape[:-1], -1))


class LayerNorm:
    """Over the last axis, computed in float32: [..., D] -> [..., D]."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        self.weight, self.bias, self.eps = weights[f"{name}.weight"], weights[f"{name}.bias"], eps

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y: tf.Tensor = layer_norm(x, self.weight, self.bias, self.eps)
        return y


class Preprocess:
    """Normalise and upscale: uint8 [B, S, S, 3] -> float32 [B, 3, I, I]."""

    def __init__(self, spec: Spec) -> None:
        self.mean = tf.constant(spec.data.mean)
        self.std = tf.constant(spec.data.std)
        self.upscale = tf.constant(interpolation_matrix(spec.data.image_size, spec.model.image_size))  # [I, S]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32) / 255  # [B, S, S, 3]
        x = (x - self.mean) / self.std
        return tf.einsum("is,bstc,jt->bcij", self.upscale, x, self.upscale)  # [B, 3, I, I]


class PatchEmbed:
    """Cut into patches and project each: [B, 3, I, I] -> [B, G*G, D]."""

    def __init__(self, m: ModelSpec, weights: Weights, name: str) -> None:
        self.grid, self.patch_size = m.grid, m.patch_size
        self.weight, self.bias = weights[f"{name}.proj.weight"], weights[f"{name}.proj.bias"]  # [D, 3, P, P], [D]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        b, c, g, p = *x.shape[:2], self.grid, self.patch_size
        x = tf.reshape(x, (b, c, g, p, g, p))
        x = tf.einsum("bcgphq,dcpq->bghd", x, self.weight) + self.bias
        return tf.reshape(x, (b, g * g, -1))


def attention(qkv: tf.Tensor) -> tf.Tensor:
    """softmax(q k^T / sqrt(D/H)) v of [B, N, 3, H, D/H], as [B, N, H, D/H]; the softmax in float32.

    In bfloat16 the tokens are padded to a multiple of 8, which tensor cores want: XLA would otherwise pad each operand
    of each product by itself. The mask keeps padded tokens out of the softmax.
    """
    n = qkv.shape[1]
    padding = -n % 8 if qkv.dtype == tf.bfloat16 else 0
    mask = tf.constant([0.0] * n + [-math.inf] * padding)
    qkv = tf.pad(qkv, [[0, 0], [0, padding], [0, 0], [0, 0], [0, 0]])
    q, k, v = tf.unstack(qkv, axis=2)
    scores = tf.cast(tf.einsum("bnhd,bmhd->bhnm", q, k), tf.float32) * q.shape[-1] ** -0.5
    shares = tf.cast(tf.nn.softmax(scores + mask), v.dtype)  # [B, H, N, N]
    return tf.einsum("bhnm,bmhd->bnhd", shares, v)[:, :n]


class Attention:
    """Multi-head self-attention: [B, N, D] -> [B, N, D]; fused by cuDNN, or of single products and a softmax."""

    def __init__(self, m: ModelSpec, weights: Weights, name: str, fused: bool) -> None:
        self.heads = m.heads
        self.mix = cudnn.attention if fused else attention
        self.qkv = Linear(weights, f"{name}.qkv")
        self.proj = Linear(weights, f"{name}.proj")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        b, n, d = x.shape
        qkv = tf.reshape(self.qkv(x), (b, n, 3, self.heads, d // self.heads))
        mixed = self.mix(qkv)
        return self.proj(tf.reshape(mixed, (b, n, d)))


class Mlp:
    """Two layers with exact GELU between them: [B, N, D] -> [B, N, D]."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.fc1 = Linear(weights, f"{name}.fc1")
        self.fc2 = Linear(weights, f"{name}.fc2")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block:
    """Pre-norm transformer block: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec, weights: Weights, name: str, fused_attention: bool) -> None:
        self.norm1 = LayerNorm(weights, f"{name}.norm1", m.layer_norm_eps)
        self.attn = Attention(m, weights, f"{name}.attn", fused_attention)
        self.norm2 = LayerNorm(weights, f"{name}.norm2", m.layer_norm_eps)
        self.mlp = Mlp(weights, f"{name}.mlp")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT:
    """The whole model: uint8 [B, S, S, 3] -> logits [B, C]."""

    def __init__(self, spec: Spec, weights: Weights, fused_attention: bool) -> None:
        m = spec.model
        self.preprocess = Preprocess(spec)
        self.patch_embed = PatchEmbed(m, weights, "patch_embed")
        self.cls_token = weights["cls_token"]  # [1, 1, D]
        self.pos_embed = weights["pos_embed"]  # [1, N, D]
        self.blocks = [Block(m, weights, f"blocks.{i}", fused_attention) for i in range(m.depth)]
        self.norm = LayerNorm(weights, "norm", m.layer_norm_eps)
        self.head = Linear(weights, "head")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(self.preprocess(images), self.cls_token.dtype)  # the weights' type is the model's precision
        x = self.patch_embed(x)  # [B, G*G, D]
        cls = tf.broadcast_to(self.cls_token, (x.shape[0], *self.cls_token.shape[1:]))
        x = tf.concat((cls, x), 1) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
