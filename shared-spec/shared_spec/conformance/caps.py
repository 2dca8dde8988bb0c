"""The largest bounds that checks may have: what a reader holds against the bounds that a result states.

A result is a file that anyone can write. Its figures cannot be found again without the machine; its bounds can, since
they follow from the workload, the precision and the golden values.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from shared_spec.conformance import golden
from shared_spec.conformance.checks import WAIT_BOUND, answer_bounds, key_bias_bound
from shared_spec.conformance.error_measures import unit_roundoff
from shared_spec.conformance.probes import KEY_BIASES
from shared_spec.conformance.timed import first_loss_bound, logits_bound, losses_in_range_bound, product_bound
from shared_spec.workload.spec import Precision, Spec

LARGEST_PRODUCT = 4096
"""Size of the largest product of the ceiling that is checked."""
SAYS_NOTHING = 0.1
"""A relative error may be bounded by what the run itself finds; a bound beyond this proves nothing."""
LATE_STEP = 0.5
"""The same for a training's late step. Weights of a LayerNorm are near 1, where float32 ends at 6e-8: early in the warm-up
that is a fifth of what a step changes. A change that is left out or made twice is still off by 1."""
AFTER_TRAINING = 4.0
"""Times the sensitivity of the initial weights' logits that those of trained ones may have."""
BITS_OF_GRADIENTS = 3.0
"""How many bits the products of a training may seem to lack (checks: the precision of products)."""

Cap = Callable[[Spec, Precision], float]


def _zero(spec: Spec, precision: Precision) -> float:
    return 0.0


def _preprocess(spec: Spec, precision: Precision) -> float:
    """As checks has it; pixels of 0 and 255 make the largest value, and before format 2.0 bf16 had a bound of its own."""
    data = spec.data
    largest = max(max(mean, 1 - mean) / std for mean, std in zip(data.mean, data.std, strict=True))
    return (3 / min(data.std) + 12 * largest) * unit_roundoff(precision)


def _one_rounding(spec: Spec, precision: Precision) -> float:
    """Beyond a rounding to bfloat16 nothing is told apart from what is computed in it."""
    return unit_roundoff("bf16")


CAPS: dict[str, Cap] = {
    "parameters": _zero,
    "load and export": _zero,
    "ranks": _zero,
    "evaluation": _zero,
    "preprocess": _preprocess,
    KEY_BIASES: lambda spec, precision: key_bias_bound(spec),
    "weight decay": lambda spec, precision: 8 * unit_roundoff("fp32"),
    "AdamW": lambda spec, precision: SAYS_NOTHING,
    "precision, training": lambda spec, precision: BITS_OF_GRADIENTS,
    **{f"precision, {what}": _one_rounding for what in ("resize", "LayerNorm", "softmax", "GELU", "loss")},
    "product": lambda spec, precision: product_bound(precision, LARGEST_PRODUCT),
    "first loss": lambda spec, precision: first_loss_bound(spec),
    "losses in range": lambda spec, precision: losses_in_range_bound(spec),
}
FAMILIES: dict[str, Cap] = {
    "precision, ": _zero,
    "synchronize, ": lambda spec, precision: WAIT_BOUND,
    "timed logits, ": logits_bound,
    "parameters changed, ": logits_bound,
    "infer, train, infer, ": lambda spec, precision: AFTER_TRAINING * logits_bound(spec, precision),
    "second step, ": lambda spec, precision: SAYS_NOTHING,
    "late step, ": lambda spec, precision: LATE_STEP,
}
"""By the beginning of a name."""


@cache
def largest_bound(name: str, spec: Spec, precision: Precision, world_size: int = 1) -> float | None:
    """The largest bound of the check `name`; None where this program knows no such check, or no golden values are kept."""
    if not golden.golden_path(spec).exists():
        return None
    if cap := CAPS.get(name) or next((cap for begin, cap in FAMILIES.items() if name.startswith(begin)), None):
        return cap(spec, precision)
    sensitivity = golden.golden(spec).get(f"{name}/{precision}")
    if sensitivity is None:
        return None
    return float(np.max(answer_bounds(name, spec, precision, sensitivity, world_size)))


def exceeds(bound: float, cap: float) -> bool:
    """Whether a bound is larger than it may be, but for the last digits of its arithmetic."""
    return not bound <= cap * (1 + 1e-6) or math.isnan(bound)
