"""The checks of several ranks that share each batch."""

import pytest
from reference_backend import ReferenceBackend
from thread_ranks import on_ranks

from shared_spec.conformance import golden
from shared_spec.conformance.checks import run_checks
from shared_spec.ranks import Group
from shared_spec.results.quantities import Check
from shared_spec.workload.spec import Spec


def trace_of(spec: Spec, group: Group, averages: bool = True) -> dict[str, Check]:
    backend = ReferenceBackend(spec, "cpu", "fp32", "numpy")
    backend.group, backend.averages = group, averages
    return {check.name: check for check in run_checks(backend, spec, "fp32", clock=backend.clock)}


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_share_the_batch_pass_every_check(tiny_spec: Spec, size: int) -> None:
    golden.golden(tiny_spec)
    for checks in on_ranks(size, lambda group: trace_of(tiny_spec, group)):
        assert [name for name, check in checks.items() if not check.passed] == []
        assert "ranks" in checks


def test_ranks_that_do_not_average_fail(tiny_spec: Spec) -> None:
    golden.golden(tiny_spec)
    for checks in on_ranks(2, lambda group: trace_of(tiny_spec, group, averages=False)):
        assert not checks["trace, gradient norm"].passed
        assert not checks["trace, parameters"].passed
        assert not checks["ranks"].passed
