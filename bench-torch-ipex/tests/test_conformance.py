"""The conformance check on the small workload, with both engines: model, gradients and updates are the specified ones."""

import pytest

from bench_torch_ipex.backend import TorchBackend
from shared_spec.conformance.checks import run_checks
from shared_spec.workload.spec import PRECISIONS, Spec


@pytest.mark.parametrize("precision", PRECISIONS)
def test_conformance(tiny_spec: Spec, engine: str, precision: str) -> None:
    checks = run_checks(TorchBackend(tiny_spec, "cpu", precision, engine), tiny_spec, precision)
    assert len(checks) > 15
    assert [check for check in checks if not check.passed] == []
