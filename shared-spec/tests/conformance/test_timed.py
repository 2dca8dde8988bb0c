"""What is checked of the ceiling's products and of batches that were only tried."""

import math

import numpy as np
import pytest
from reference_backend import Work, rounded
from timed_backend import Timed, failed

from shared_spec.conformance import timed
from shared_spec.workload.spec import Spec


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_of_the_ceiling_are_checked(spec: Spec, precision: str) -> None:
    class LowerProduct(Timed):
        def matmul(self, n: int) -> Work:
            a, b = self.matmul_operands(n)
            return self._dispatch(rounded(a, 5) @ rounded(b, 5))

    class NoProduct(Timed):
        def matmul(self, n: int) -> Work:
            return self._dispatch(np.zeros((n, n), np.float32))

    assert timed.product_check(Timed(spec, "cpu", precision, "numpy"), precision, 256).passed
    for kind in (LowerProduct, NoProduct):
        assert not timed.product_check(kind(spec, "cpu", precision, "numpy"), precision, 256).passed


def test_losses_of_a_tried_batch_are_in_range(spec: Spec) -> None:
    good = [math.log(100), 4.5, 4.7]

    def names(losses: list[float], norms: list[float]) -> set[str]:
        return failed(timed.range_checks(spec, losses, norms))

    assert names(good, [1.0] * 3) == set()
    assert names([2.3, 2.3], [1.0]) == {"first loss"}
    assert names([*good, math.nan], [1.0]) == {"losses in range"}
    assert names([*good, 50.0], [1.0]) == {"losses in range"}
    assert names(good, [1.0, 0.0]) == {"losses in range"}
    assert names([], []) == {"first loss", "losses in range"}
