"""DeiT-small in PyTorch, from uint8 pixels to logits.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names and layouts are timm's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_torch_ipex.onednn import Linear, attention, available
from shared_spec.workload.preprocessing import interpolation_matrix
from shared_spec.workload.spec import ModelSpec, Spec


class Preprocess(nn.Module):
    """Normalise and upscale: uint8 [B, S, S, 3] -> float32 [B, 3, I, I]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.data.mean), torch.tensor(spec.data.std)
        upscale = torch.from_numpy(interpolation_matrix(spec.data.image_size, spec.model.image_size))
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("upscale", upscale, persistent=False)  # [I, S]

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
        x = (x - self.mean) / self.std
        return self.upscale @ x @ self.upscale.T  # [B, 3, I, I]


class PatchEmbed(nn.Module):
    """Cut into patches and project each: [B, 3, I, I] -> [B, G*G, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(m.channels, m.dim, m.patch_size, m.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, D, G, G] -> [B, G*G, D]


class LayerNorm(nn.LayerNorm):
    """Over the last axis, computed in float32; in training as a float32 operator, whose gradients are sums in float32.

    So too in inference on CPUs where oneDNN has no bfloat16: PyTorch asks it all the same, and it raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not available(x.dtype):
            return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


class Attention(nn.Module):
    """Multi-head self-attention: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.heads = m.heads
        self.qkv = Linear(m.dim, 3 * m.dim)
        self.proj = Linear(m.dim, m.dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, D/H]
        x = attention(q, k, v).transpose(1, 2)  # [B, N, H, D/H]
        return self.proj(x.reshape(b, n, d))


class Mlp(nn.Module):
    """Two layers with exact GELU between them: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.fc1 = Linear(m.dim, m.mlp_dim)
        self.fc2 = Linear(m.mlp_dim, m.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: [B, N, D] -> [B, N, D]."""

    def __init__(self, m: ModelSpec) -> None:
        super().__init__()
        self.norm1 = LayerNorm(m.dim, m.layer_norm_eps)
        self.attn = Attention(m)
        self.norm2 = LayerNorm(m.dim, m.layer_norm_eps)
        self.mlp = Mlp(m)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT(nn.Module):
    """The whole model: uint8 [B, S, S, 3] -> logits [B, C]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        m = spec.model
        self.preprocess = Preprocess(spec)
        self.patch_embed = PatchEmbed(m)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, m.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, m.tokens, m.dim))
        self.blocks = nn.ModuleList([Block(m) for _ in range(m.depth)])
        self.norm = LayerNorm(m.dim, m.layer_norm_eps)
        self.head = Linear(m.dim, m.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(self.preprocess(images))  # [B, G*G, D]
        cls = self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
        x = torch.cat((cls, x), 1) + self.pos_embed.to(x.dtype)  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
