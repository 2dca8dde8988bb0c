"""A check, and how far a correct backend may be off.

How the bounds are derived. Let u be the unit roundoff of the precision: 2^-24 for float32, 2^-8 for bfloat16. A
backward stable computation gives the exact answer for data that are off by a few u (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd edition, 2002, section 1.5). How far that moves an answer is a property of the workload, and
it is measured, not guessed: the reference computes each answer twice, once with every parameter off by a relative +u
or -u, drawn at random. What then separates the two answers is the answer's sensitivity; it holds the depth of the
network, the saturation of its softmax and the chaos of its training. Such bounds are `headroom` times a sensitivity.
The others follow from u, and their reasoning stands at their check.
"""

import math

from shared_spec.conformance.error_measures import unit_roundoff
from shared_spec.conformance.probes import BATCH
from shared_spec.results.quantities import Check, finite
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def check(name: str, figure: float, bound: float, detail: str) -> Check:
    """Passed when `figure` (NaN where there is none) does not exceed `bound`; `detail` says of what."""
    passed, value = bool(figure <= bound), finite(float(figure))
    return Check(name=name, passed=passed, figure=value, bound=float(bound), detail=detail)


def headroom(spec: Spec, precision: str) -> float:
    """How many times the sensitivity a correct backend may be off.

    The sensitivity is that to one rounding of each of a block's 4 matrices. A backend rounds more, and each time
    independently, so that the effects add up as squares.

    bf16: some 20 roundings in a block (operands and results of 6 products, 2 normalisations, GELU, softmax, 2 sums)
    make sqrt(20 / 4) = 2.2; 4 leaves a margin. Sums are to be made in float32 and then count for nothing.

    fp32: the sums themselves are rounded. Adding K terms in order is off by u * sqrt(K / 2) of the result, as the sum
    of the first k has size sqrt(k) (for the root see Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019). With K the
    workload's longest sum and 6 products in a block: sqrt(6 / 4 * K / 2). Backends that add in blocks stay far below.
    """
    if precision == "bf16":
        return 4.0
    m = spec.model
    return math.sqrt(0.75 * max(m.channels * m.patch_size**2, m.dim, m.mlp_dim, BATCH * m.tokens))


def norm_rounding(spec: Spec) -> float:
    """Relative error of the gradient norm that a correct backend may make, and with it of all clipped gradients.

    It is by far the longest sum, over all n parameters where a backend keeps them in one vector. Adding n squares in
    order, each partial sum of k off by u * k / n of the result, is off by u * sqrt(n / 3), and the root of the sum by
    half of that; the other half is margin. No perturbation of parameters shows it.
    """
    return math.sqrt(params.count(spec) / 3) * unit_roundoff("fp32")


def worst(name: str, found: dict[str, tuple[float, float]]) -> Check:
    """A check of every parameter, as that of the one whose error is largest in proportion to its bound.

    Args:
        found: error and bound of each parameter.
    """
    ratios = {parameter: error / bound for parameter, (error, bound) in found.items()}
    parameter = max(ratios, key=lambda key: math.inf if math.isnan(ratios[key]) else ratios[key])
    return check(name, *found[parameter], f"relative error (L2) of {parameter}, the worst of all parameters")
