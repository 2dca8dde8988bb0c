"""The conformance check on the small workload, on each device there is: model, gradients and updates are the specified ones."""

import pytest

from shared_spec.conformance.checks import run_checks
from shared_spec.workload.spec import PRECISIONS


@pytest.mark.parametrize("precision", PRECISIONS)
def test_conformance(make, spec, precision):
    checks = run_checks(make(precision), spec, precision)
    assert len(checks) > 15
    assert [check for check in checks if not check.passed] == []
