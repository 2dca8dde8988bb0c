"""The conformance check on the small workload: model, gradients and updates are the specified ones."""

from bench_tf_cuda.backend import TfBackend
from shared_spec.conformance.checks import run_checks
from shared_spec.workload.spec import Spec


def test_conformance(backend: TfBackend, spec: Spec) -> None:
    checks = run_checks(backend, spec, backend.precision)
    assert len(checks) > 15
    assert [check for check in checks if not check.passed] == []
