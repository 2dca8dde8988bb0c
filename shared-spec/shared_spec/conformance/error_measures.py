"""How far two answers are apart, and how far rounding alone may put them: error measures and unit roundoffs."""

import numpy as np

from shared_spec.conformance.probes import CASES, random_bytes

SIGNIFICAND_BITS = {"fp32": 24, "bf16": 8}
"""With the implicit leading one (IEEE 754; bfloat16 is the upper half of a binary32)."""
PROJECTIONS = 8
"""Random-sign projections kept of each parameter's array: one for each bit of a byte."""


def unit_roundoff(precision: str) -> float:
    """Largest relative error of rounding to nearest at this precision."""
    return 2.0 ** -SIGNIFICAND_BITS[precision]


def relative_error(value: np.ndarray, exact: np.ndarray) -> float:
    """L2 norm of the error, relative to that of the exact value."""
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def _worst_step(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value / exact - 1)))


def _worst_learning_rate(value: np.ndarray, exact: np.ndarray) -> float:
    """Error of the rate that was really applied: the least-squares factor between two series of updates [STEPS, C]."""
    return float(np.max(np.abs((value * exact).sum(-1) / (exact * exact).sum(-1) - 1)))


METRICS = {
    **{f"logits, {case}": (relative_error, "relative error (L2) of all logits") for case in CASES},
    "trace, logits": (relative_error, "relative error (L2) of all logits after the last step"),
    "trace, loss": (_worst_step, "largest relative error of a step"),
    "trace, gradient norm": (_worst_step, "largest relative error of a step"),
    "trace, learning rate": (_worst_learning_rate, "largest relative error of a step, read off head.bias"),
}
"""How two values of a whole array are compared, and what the figure then is."""


def projections(name: str, value: np.ndarray) -> np.ndarray:
    """Inner products with PROJECTIONS vectors of random signs, [PROJECTIONS].

    The mean square of what separates the projections of two arrays is an unbiased estimate of their squared distance
    (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), within a factor of 2 in either direction for nearly all draws.
    """
    bits = np.unpackbits(random_bytes(f"projection {name}", value.size)).reshape(-1, PROJECTIONS)
    flat = value.astype(np.float64).ravel()
    projected: np.ndarray = flat.sum() - 2 * (flat @ bits.astype(np.float64))
    return projected
