"""Parameters in canonical form: timm's names and layouts, float32, the same for every framework."""

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import safetensors
import safetensors.numpy

from shared_spec import files
from shared_spec.errors import UserError
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import Spec

Params = dict[str, np.ndarray]


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in canonical order; linear weights are [out, in]."""
    m = spec.model
    table: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, m.dim),
        "pos_embed": (1, m.tokens, m.dim),
        "patch_embed.proj.weight": (m.dim, m.channels, m.patch_size, m.patch_size),
        "patch_embed.proj.bias": (m.dim,),
    }
    for i in range(m.depth):
        table |= {
            f"blocks.{i}.norm1.weight": (m.dim,),
            f"blocks.{i}.norm1.bias": (m.dim,),
            f"blocks.{i}.attn.qkv.weight": (3 * m.dim, m.dim),
            f"blocks.{i}.attn.qkv.bias": (3 * m.dim,),
            f"blocks.{i}.attn.proj.weight": (m.dim, m.dim),
            f"blocks.{i}.attn.proj.bias": (m.dim,),
            f"blocks.{i}.norm2.weight": (m.dim,),
            f"blocks.{i}.norm2.bias": (m.dim,),
            f"blocks.{i}.mlp.fc1.weight": (m.mlp_dim, m.dim),
            f"blocks.{i}.mlp.fc1.bias": (m.mlp_dim,),
            f"blocks.{i}.mlp.fc2.weight": (m.dim, m.mlp_dim),
            f"blocks.{i}.mlp.fc2.bias": (m.dim,),
        }
    table |= {
        "norm.weight": (m.dim,),
        "norm.bias": (m.dim,),
        "head.weight": (m.classes, m.dim),
        "head.bias": (m.classes,),
    }
    return table


def count(spec: Spec) -> int:
    """Number of parameters: 21,704,164 for the standard spec."""
    return sum(int(np.prod(shape)) for shape in shapes(spec).values())


def has_decay(name: str, shape: tuple[int, ...]) -> bool:
    """Whether AdamW decays this parameter: all but 1-D ones, cls_token and pos_embed (DeiT's no_weight_decay)."""
    return len(shape) > 1 and name not in ("cls_token", "pos_embed")


class FlatLayout:
    """All parameters as one vector, the decayed ones first: one optimiser update instead of 152.

    Attributes:
        shapes: names and shapes in the vector's order.
        sizes: number of values of each.
        decayed: how many values from the start are subject to weight decay.
    """

    def __init__(self, spec: Spec) -> None:
        self._canonical = shapes(spec)
        self.shapes = dict(sorted(self._canonical.items(), key=lambda item: not has_decay(*item)))
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.decayed = sum(math.prod(shape) for name, shape in self.shapes.items() if has_decay(name, shape))

    def flatten(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [count] of parameters, or of anything else by their names."""
        return np.concatenate([np.ravel(params[name]) for name in self.shapes])

    def by_name(self, vector: np.ndarray) -> Params:
        """The inverse: views into `vector`, in canonical order."""
        pieces = dict(zip(self.shapes, np.split(vector, np.cumsum(self.sizes)[:-1]), strict=True))
        return {name: pieces[name].reshape(shape) for name, shape in self._canonical.items()}


@cache
def _normal_quantiles() -> np.ndarray:
    """The 2^16 midpoint quantiles of the standard normal distribution, float32.

    Rounded to float32, the table does not depend on the last bits of a machine's logarithm, and drawing from it
    needs none. Its variance is 0.99995, its largest value 4.3.
    """
    normal, n = NormalDist(), 1 << 16
    return np.array([normal.inv_cdf((i + 0.5) / n) for i in range(n)], np.float32)


def initial(spec: Spec) -> Params:
    """The specified initial values, bit-identical on every machine.

    Normal(0, std) for matrices, cls_token, pos_embed and the patch embedding (timm v0.3.3 drew its linear
    layers so); ones for LayerNorm weights; zeros for biases.
    """
    values: Params = {}
    for index, (name, shape) in enumerate(shapes(spec).items()):
        if len(shape) > 1:
            size = int(np.prod(shape))
            bits = random_bits(spec.init.seed, "init", index, -(-size // 4)).view("<u2")[:size]
            values[name] = (_normal_quantiles()[bits] * np.float32(spec.init.std)).reshape(shape)
        else:
            fill = 1.0 if name.endswith("weight") else 0.0
            values[name] = np.full(shape, fill, np.float32)
    return values


def fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and little-endian float32 values, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(params):
        value = params[name]
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()


def check(spec: Spec, params: Mapping[str, np.ndarray], source: str) -> None:
    """Raise UserError, naming the offender, unless `params` has exactly the canonical names, shapes and float32."""
    expected = shapes(spec)
    if missing := [name for name in expected if name not in params]:
        raise UserError(
            f"{source}: parameter {missing[0]} is missing ({len(missing)} in all); timm's names are expected."
        )
    if unknown := sorted(set(params) - set(expected)):
        raise UserError(
            f"{source}: parameter {unknown[0]} is unknown ({len(unknown)} in all); timm's names are expected."
        )
    for name, shape in expected.items():
        if params[name].shape != shape:
            raise UserError(f"{source}: {name} has shape {list(params[name].shape)}, expected {list(shape)}.")
        if params[name].dtype != np.float32:
            raise UserError(f"{source}: {name} has dtype {params[name].dtype}, expected float32.")


def load(spec: Spec, path: Path) -> Params:
    """Read canonical parameters from a safetensors file.

    Raises:
        UserError: the file is unreadable, or a name, shape or dtype is not the expected one.
    """
    try:
        values = safetensors.numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a .safetensors file.") from error
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        # Not only SafetensorError: that is what a dtype NumPy does not know (bfloat16, float8) comes out as.
        raise UserError(f"{path}: is not a safetensors file of float32 arrays ({error}).") from error
    check(spec, values, str(path))
    if wrong := [name for name, value in values.items() if not np.isfinite(value).all()]:
        raise UserError(
            f"{path}: {wrong[0]} has values that are no numbers ({len(wrong)} parameters in all), as after a training that "
            "diverged; give weights of another."
        )
    return values


def save(params: Mapping[str, np.ndarray], path: Path) -> None:
    """Write parameters as safetensors, atomically."""
    files.write_atomic(path, safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in params.items()}))
