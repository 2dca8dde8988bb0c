"""The model's forward pass for inference on oneDNN, with fewer operators than the model itself has.

At batch 1 a pass is some 200 small operators, and on many cores each is over sooner than its threads have met. Here GELU
and the residual sums are in the epilogues of the products, weights are packed once, and nothing is cast on the way.
Shapes are those of model.py; R is rows of a product (B*N).
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_torch_ipex.model import Block, DeiT
from bench_torch_ipex.ops import attention, pack, product


class Packed(NamedTuple):
    """A linear layer in the layout that oneDNN prefers for products of so many rows."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The layer alone: x W^T + b."""
        return product(x, *self)

    def gelu(self, x: Tensor) -> Tensor:
        """Exact GELU of the layer."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, *self, "gelu", [], "none")
        return result

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """The layer and what it is added to."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, *self, "add")
        return result


def pack_layer(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int) -> Packed:
    """Weight [out, in] and bias [out] for products of `rows` rows in `dtype`."""
    if bias is None:
        raise ValueError("every layer of this model has a bias")
    return Packed(pack(weight.detach().to(dtype), rows), bias.detach().to(dtype))


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm of x in its own type: PyTorch computes it in float32, and takes float32 parameters with bfloat16."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class PackedBlock:
    """A transformer block: [B, N, D] -> [B, N, D]."""

    def __init__(self, block: Block, dtype: torch.dtype, rows: int) -> None:
        layers = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
        self.qkv, self.proj, self.fc1, self.fc2 = (
            pack_layer(layer.weight, layer.bias, dtype, rows) for layer in layers
        )
        self.norm1, self.norm2, self.heads = block.norm1, block.norm2, block.attn.heads

    def __call__(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(layer_norm(self.norm1, x)).reshape(b, n, 3, self.heads, d // self.heads)
        x = self.proj.added_to(x, attention(qkv).reshape(b, n, d))
        return self.fc2.added_to(x, self.fc1.gelu(layer_norm(self.norm2, x)))


class Inference:
    """The whole model for one batch size: uint8 [B, S, S, 3] -> logits [B, C].

    It is of the parameters at the time it is made. When they change it is for its owner to say: PyTorch's count of
    writes to a tensor does not tell, since the optimiser of Intel's extension writes past it.
    """

    def __init__(self, model: DeiT, dtype: torch.dtype, batch_size: int) -> None:
        self.model, self.dtype, self.batch_size = model, dtype, batch_size
        tokens = model.pos_embed.shape[1]
        projection = model.patch_embed.proj  # a convolution whose kernel is its stride: a product over patches
        self.patch_size = projection.kernel_size[0]
        self.patches = pack_layer(projection.weight.flatten(1), projection.bias, dtype, batch_size * (tokens - 1))
        self.cls_token, self.pos_embed = (p.detach().to(dtype) for p in (model.cls_token, model.pos_embed))
        self.blocks = [PackedBlock(cast(Block, block), dtype, batch_size * tokens) for block in model.blocks]
        self.head = pack_layer(model.head.weight, model.head.bias, dtype, batch_size)

    def __call__(self, images: Tensor) -> Tensor:
        x = self.model.preprocess(images).to(self.dtype)  # [B, 3, I, I]
        x = self.patches(self._cut(x))  # [B, G*G, D]
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed  # [B, N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(layer_norm(self.model.norm, x[:, 0]))

    def _cut(self, x: Tensor) -> Tensor:
        """Patches, each as one row in the order of the kernel's values: [B, 3, I, I] -> [B, G*G, 3*P*P]."""
        (b, c, i, _), p = x.shape, self.patch_size
        x = x.reshape(b, c, i // p, p, i // p, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(b, -1, c * p * p)
