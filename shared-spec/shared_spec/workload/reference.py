"""The workload's definition: DeiT forward and backward, clipping and AdamW in plain NumPy, written to be read.

Everything is computed in the type of the parameters given: float64 makes this the arbiter that conformance compares
backends with. Parameters may be arrays of another module than NumPy's, of which `Arrays` says how they come about. A
layer returns its output and its pullback, a function from the gradient of the loss with respect to the output to the
gradients with respect to the layer's arguments, in their order.

Shapes: B batch, S side of a dataset image, I side of the model's input, G patches a side, P patch side,
N tokens (G*G + 1), D dim, H heads, C classes. Parameter names and layouts are timm's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from shared_spec.workload.arrays import NUMPY, Arrays, erf
from shared_spec.workload.interpolation import interpolation_matrix
from shared_spec.workload.params import Params, has_decay
from shared_spec.workload.spec import ModelSpec, OptimizerSpec, Spec

Pullback = Callable[..., Any]
Layered = tuple[np.ndarray, Pullback]
"""A layer's output and its pullback."""


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix product over the last two axes. All of the workload's products are made here, so that tests can round."""
    result: np.ndarray = a @ b
    return result


def preprocess(spec: Spec, images: np.ndarray, dtype: np.dtype[Any], arrays: Arrays = NUMPY) -> np.ndarray:
    """Normalise and upscale: uint8 [B, S, S, 3] on the host -> [B, I, I, 3]."""
    upscale = arrays.put(interpolation_matrix(spec.data.image_size, spec.model.image_size).astype(dtype))  # [I, S]
    mean, std = (arrays.put(np.array(values, dtype)) for values in (spec.data.mean, spec.data.std))
    x = (arrays.put(images).astype(dtype) / 255 - mean) / std
    x = product(product(upscale, x.transpose(0, 3, 1, 2)), upscale.T)  # [B, 3, I, I]
    return x.transpose(0, 2, 3, 1)


def patches(x: np.ndarray, size: int) -> np.ndarray:
    """Cut into patches, row by row: [B, I, I, 3] -> [B, G*G, 3*P*P], each patch in the order channel, row, column."""
    b, side, _, channels = x.shape
    grid = side // size
    x = x.reshape(b, grid, size, grid, size, channels).transpose(0, 1, 3, 5, 2, 4)  # [B, G, G, 3, P, P]
    return x.reshape(b, grid * grid, channels * size * size)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Layered:
    """Affine map of the last axis: [..., in] -> [..., out], weight [out, in]."""

    def pullback(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows_dy, rows_x = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        return product(dy, weight), product(rows_dy.T, rows_x), rows_dy.sum(0)

    return product(x, weight.T) + bias, pullback


def patch_projection(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Layered:
    """A convolution whose stride is its kernel: linear over flattened patches, weight [D, 3, P, P]."""
    y, linear_back = linear(x, weight.reshape(len(weight), -1), bias)

    def pullback(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dx, dweight, dbias = linear_back(dy)
        return dx, dweight.reshape(weight.shape), dbias

    return y, pullback


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> Layered:
    """Normalise the last axis by its mean and biased variance, then scale and shift (arXiv 1607.06450, eq. 4)."""
    centred = x - x.mean(-1, keepdims=True)
    inverse_std = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    normal = centred * inverse_std

    def pullback(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dn = dy * weight
        dx = dn - dn.mean(-1, keepdims=True) - normal * (dn * normal).mean(-1, keepdims=True)
        all_rows = tuple(range(x.ndim - 1))
        return dx * inverse_std, (dy * normal).sum(all_rows), dy.sum(all_rows)

    return normal * weight + bias, pullback


def gelu(x: np.ndarray, erf: Callable[[np.ndarray], np.ndarray] = erf) -> Layered:
    """Exact GELU, x times the standard normal distribution function of x (arXiv 1606.08415, section 2)."""
    below = 0.5 * (1 + erf(x / math.sqrt(2)))

    def pullback(dy: np.ndarray) -> np.ndarray:
        density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        dx: np.ndarray = dy * (below + x * density)
        return dx

    return x * below, pullback


def softmax(x: np.ndarray) -> Layered:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    y = exponentials / exponentials.sum(-1, keepdims=True)

    def pullback(dy: np.ndarray) -> np.ndarray:
        dx: np.ndarray = y * (dy - (dy * y).sum(-1, keepdims=True))
        return dx

    return y, pullback


def attention(qkv: np.ndarray, heads: int) -> Layered:
    """Scaled dot-product self-attention of packed queries, keys, values: [B, N, 3*D] -> [B, N, D]."""
    b, n, packed = qkv.shape
    q, k, v = qkv.reshape(b, n, 3, heads, -1).transpose(2, 0, 3, 1, 4)  # each [B, H, N, D/H]
    scale = (packed // 3 // heads) ** -0.5
    weights, softmax_back = softmax(product(q, k.swapaxes(-1, -2)) * scale)  # [B, H, N, N]

    def pullback(dy: np.ndarray) -> np.ndarray:
        dy = dy.reshape(b, n, heads, -1).transpose(0, 2, 1, 3)  # [B, H, N, D/H]
        dv = product(weights.swapaxes(-1, -2), dy)
        dscores = softmax_back(product(dy, v.swapaxes(-1, -2))) * scale
        dq, dk = product(dscores, k), product(dscores.swapaxes(-1, -2), q)
        dqkv: np.ndarray = np.stack((dq, dk, dv)).transpose(1, 3, 0, 2, 4).reshape(b, n, packed)
        return dqkv

    return product(weights, v).transpose(0, 2, 1, 3).reshape(b, n, packed // 3), pullback


def _named(params: Mapping[str, np.ndarray], name: str, layer: Callable[..., Layered], x: np.ndarray) -> Layered:
    """Apply a layer with the parameters NAME.weight and NAME.bias; its pullback writes their gradients by name."""
    y, layer_back = layer(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def pullback(dy: np.ndarray, gradients: Params) -> np.ndarray:
        dx: np.ndarray
        dx, gradients[f"{name}.weight"], gradients[f"{name}.bias"] = layer_back(dy)
        return dx

    return y, pullback


def block(
    model: ModelSpec, params: Mapping[str, np.ndarray], name: str, x: np.ndarray, arrays: Arrays = NUMPY
) -> Layered:
    """Pre-norm transformer block: [B, N, D] -> [B, N, D]; its pullback writes its parameters' gradients."""
    norm = partial(layer_norm, eps=model.layer_norm_eps)
    y, norm1_back = _named(params, f"{name}.norm1", norm, x)
    y, qkv_back = _named(params, f"{name}.attn.qkv", linear, y)
    y, attention_back = attention(y, model.heads)
    y, proj_back = _named(params, f"{name}.attn.proj", linear, y)
    x = x + y
    y, norm2_back = _named(params, f"{name}.norm2", norm, x)
    y, fc1_back = _named(params, f"{name}.mlp.fc1", linear, y)
    y, gelu_back = gelu(y, arrays.erf)
    y, fc2_back = _named(params, f"{name}.mlp.fc2", linear, y)

    def pullback(dx: np.ndarray, g: Params) -> np.ndarray:
        dx = dx + norm2_back(fc1_back(gelu_back(fc2_back(dx, g)), g), g)
        dx += norm1_back(qkv_back(attention_back(proj_back(dx, g)), g), g)
        return dx

    return x + y, pullback


def forward(spec: Spec, params: Mapping[str, np.ndarray], images: np.ndarray, arrays: Arrays = NUMPY) -> Layered:
    """The whole model: uint8 [B, S, S, 3] -> logits [B, C]; its pullback returns all gradients by name."""
    m = spec.model
    x = patches(preprocess(spec, images, params["cls_token"].dtype, arrays), m.patch_size)
    x, patch_back = _named(params, "patch_embed.proj", patch_projection, x)
    cls = np.broadcast_to(params["cls_token"], (len(x), 1, m.dim))
    x = np.concatenate((cls, x), 1) + params["pos_embed"]  # [B, N, D]
    block_backs = []
    for i in range(m.depth):
        x, block_back = block(m, params, f"blocks.{i}", x, arrays)
        block_backs.append(block_back)
    tokens = x
    y, norm_back = _named(params, "norm", partial(layer_norm, eps=m.layer_norm_eps), x[:, 0])
    logits, head_back = _named(params, "head", linear, y)

    def pullback(dlogits: np.ndarray) -> Params:
        gradients: Params = {}
        dx = np.zeros_like(tokens)
        dx[:, 0] = norm_back(head_back(dlogits, gradients), gradients)
        for block_back in reversed(block_backs):
            dx = block_back(dx, gradients)
        gradients["pos_embed"] = dx.sum(0, keepdims=True)
        gradients["cls_token"] = gradients["pos_embed"][:, :1]
        patch_back(dx[:, 1:], gradients)
        return gradients

    return logits, pullback


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the batch of -sum(targets * log softmax(logits)), and its gradient [B, C] for targets that sum to 1."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    loss = -(targets * log_softmax).sum() / len(logits)
    return float(loss), (np.exp(log_softmax) - targets) / len(logits)


def loss_and_gradients(
    spec: Spec,
    params: Mapping[str, np.ndarray],
    images: np.ndarray,
    targets: np.ndarray,
    arrays: Arrays = NUMPY,
) -> tuple[float, Params]:
    """Loss and the unclipped gradient of every parameter, for uint8 [B, S, S, 3] and soft targets [B, C] on the host."""
    logits, pullback = forward(spec, params, images, arrays)
    loss, dlogits = cross_entropy(logits, arrays.put(targets).astype(logits.dtype))
    return loss, pullback(dlogits)


def clip(gradients: Params, clip_norm: float) -> tuple[Params, float]:
    """Scale all gradients by min(1, clip_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; also the norm."""
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
    scale = min(1.0, clip_norm / (norm + 1e-6))
    return {name: g * scale for name, g in gradients.items()}, norm


@dataclass(frozen=True)
class State:
    """Parameters, AdamW's moments of the gradients, and the number of updates made."""

    params: Params
    m: Params
    v: Params
    step: int = 0

    @staticmethod
    def start(params: Params) -> "State":
        zeros = {name: np.zeros_like(p) for name, p in params.items()}
        return State(params, zeros, zeros)


def updated(
    o: OptimizerSpec, name: str, p: np.ndarray, m: np.ndarray, v: np.ndarray, step: int, lr: float
) -> np.ndarray:
    """A parameter after AdamW's update number `step`, from 1, with moments that hold this step's gradient already.

    arXiv 1711.05101, algorithm 2, where lr scales the decay too; eps is added to the bias-corrected root as in PyTorch.
    """
    decay = o.weight_decay if has_decay(name, p.shape) else 0.0
    direction = (m / (1 - o.beta1**step)) / (np.sqrt(v / (1 - o.beta2**step)) + o.eps)
    result: np.ndarray = p - lr * decay * p - lr * direction
    return result


def adamw(o: OptimizerSpec, state: State, gradients: Params, lr: float) -> State:
    """One AdamW update of everything, given clipped gradients."""
    step = state.step + 1
    m = {name: o.beta1 * state.m[name] + (1 - o.beta1) * g for name, g in gradients.items()}
    v = {name: o.beta2 * state.v[name] + (1 - o.beta2) * g * g for name, g in gradients.items()}
    params = {name: updated(o, name, p, m[name], v[name], step, lr) for name, p in state.params.items()}
    return State(params, m, v, step)
