"""A faultless backend passes every check, and each planted fault fails the check that is meant for it."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from reference_backend import FAULTS, ReferenceBackend

from shared_spec import files
from shared_spec.conformance import golden, probes
from shared_spec.conformance.checks import run_checks
from shared_spec.conformance.error_measures import projections
from shared_spec.results.quantities import Check
from shared_spec.workload import params, reference
from shared_spec.workload.spec import Spec


@cache
def checks_of(spec: Spec, precision: str, fault: str) -> dict[str, Check]:
    backend = ReferenceBackend(spec, "cpu", precision, "numpy", fault)
    return {check.name: check for check in run_checks(backend, spec, precision, clock=backend.clock)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, check in checks.items() if not check.passed]


CHECKS = {
    "parameters",
    "load and export",
    "preprocess",
    "logits, initial weights",
    "logits, large weights",
    "logits, small variance",
    "gradients, initial weights",
    "gradients, large weights",
    "gradients, small variance",
    "trace, loss",
    "trace, gradient norm",
    "trace, learning rate",
    "trace, first moments",
    "trace, second moments",
    "trace, key biases",
    "trace, parameters",
    "trace, logits",
    "weight decay",
    "AdamW",
    "precision, inference",
    "precision, training",
    "precision, resize",
    "precision, LayerNorm",
    "precision, softmax",
    "precision, GELU",
    "precision, loss",
    "infer, train, infer, batch 1",
    "infer, train, infer, batch 4",
    "second step, clip",
    "second step, second moments",
    "second step, parameters",
    "synchronize, training steps",
    "synchronize, inference",
    "synchronize, matrix products",
}

AGAIN = ["infer, train, infer, batch 1", "infer, train, infer, batch 4"]
MEANT_FOR = {
    "tanh GELU": ["logits, large weights", "gradients, large weights"],
    "LayerNorm eps 1e-5": ["logits, small variance", "gradients, small variance"],
    "queries, keys, values in another order": ["logits, large weights"],
    "queries and keys swapped": ["logits, large weights"],
    "attention not scaled": ["logits, large weights"],
    "resize with aligned corners": ["preprocess"],
    "resize to the nearest": ["preprocess"],
    "mean and std of ImageNet": ["preprocess"],
    "TF32 products": ["precision, inference", "precision, training", "logits, initial weights"],
    "bf16 products": ["precision, inference", "precision, training", "logits, initial weights"],
    "not clipped": ["trace, first moments", "trace, parameters"],
    "no bias correction": ["AdamW", "trace, parameters"],
    "eps inside the bias correction": ["AdamW", "trace, parameters"],
    "Adam eps 1e-7": ["AdamW", "trace, parameters"],
    "beta2 0.99": ["trace, second moments", "trace, parameters"],
    "decay through the moments": ["weight decay", "trace, first moments", "trace, parameters"],
    "decay on biases alone": ["weight decay", "AdamW", "trace, parameters"],
    "decay on everything": ["weight decay", "AdamW", "trace, parameters"],
    "decay on pos_embed": ["weight decay", "AdamW", "trace, parameters"],
    "no decay": ["weight decay", "AdamW", "trace, parameters"],
    "labels not smoothed": ["trace, loss", "gradients, initial weights"],
    "learning rate of the first step": ["trace, learning rate", "trace, parameters"],
    "norm of clipped gradients": ["trace, gradient norm"],
    "inference with old weights": ["trace, logits", *AGAIN],
    "moments kept by load_params": ["weight decay", "AdamW"],
    "parameters kept in bf16": ["load and export"],
    "parameter left out": ["parameters"],
    "NaN gradients": ["gradients, initial weights"],
    "synchronize does not wait": [name for name in CHECKS if name.startswith("synchronize")],
    "TF32 in attention": ["logits, large weights", "gradients, large weights"],
    "6-bit operands": ["precision, inference", "precision, training"],
    "fp8 operands": ["precision, inference", "precision, training"],
    "LayerNorm statistics in bf16": ["precision, LayerNorm"],
    "softmax sums in bf16": ["precision, softmax"],
    "loss in bf16": ["precision, loss"],
    "resize in bf16 in the step only": ["precision, resize"],
    "resize in bf16": ["preprocess", "precision, resize"],
    "nearest resize in the step only": ["precision, resize", "trace, loss"],
    "tanh GELU in the step only": ["precision, GELU"],
    "TF32 products in the step only": ["precision, training"],
    "moments kept in bf16": ["second step, second moments"],
    "first moments kept in bf16": ["second step, second moments"],
    "second moments kept in bf16": ["second step, second moments"],
    "clipped parameter by parameter": ["second step, clip", "trace, first moments"],
    "decay by the peak rate": ["second step, parameters", "trace, parameters"],
    "learning rate one step late": ["trace, learning rate", "second step, parameters"],
    "last row dropped": ["gradients, initial weights", "trace, loss"],
    "targets of the batch before": ["trace, loss", "trace, first moments"],
    "patch embedding frozen": ["second step, parameters", "trace, parameters"],
    "weights packed at first inference after loading and kept": AGAIN,
    "answers remembered by their image": [*AGAIN, "synchronize, inference"],
    "moving average of weights in inference": AGAIN,
}
"""Planted fault -> checks that have to fail in fp32."""

MEANT_FOR_IN_BF16 = {
    "LayerNorm eps 1e-5": ["logits, small variance"],
    "queries and keys swapped": ["logits, large weights"],
    "resize with aligned corners": ["preprocess"],
    "fp32 products": ["precision, inference", "precision, training"],
    "not clipped": ["trace, first moments", "trace, parameters"],
    "no bias correction": ["AdamW", "trace, parameters"],
    "Adam eps 1e-7": ["AdamW"],
    "decay on biases alone": ["weight decay"],
    "labels not smoothed": ["trace, loss"],
    "6-bit operands": ["precision, inference", "precision, LayerNorm"],
    "fp8 operands": ["precision, inference", "precision, LayerNorm"],
    "LayerNorm statistics in bf16": ["precision, LayerNorm"],
    "softmax sums in bf16": ["precision, softmax"],
    "loss in bf16": ["precision, loss"],
    "resize in bf16 in the step only": ["precision, resize"],
    "resize in bf16": ["preprocess", "precision, resize"],
    "nearest resize in the step only": ["precision, resize"],
    "tanh GELU": ["precision, GELU"],
    "moments kept in bf16": ["second step, second moments"],
    "first moments kept in bf16": ["second step, second moments"],
    "decay by the peak rate": ["second step, parameters"],
    "last row dropped": ["gradients, initial weights"],
    "weights packed at first inference after loading and kept": AGAIN,
    "answers remembered by their image": AGAIN,
    "moving average of weights in inference": AGAIN,
}
"""The same in bf16, for one fault of each kind; what bf16 cannot tell is said in the module's docstring."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faultless_backend_passes_every_check(tiny_spec: Spec, precision: str) -> None:
    checks = checks_of(tiny_spec, precision, "none")
    assert checks.keys() == CHECKS
    assert failed(checks) == []
    assert all(check.detail for check in checks.values())
    assert all(check.figure is not None and 0 <= check.figure <= check.bound < math.inf for check in checks.values())


@pytest.mark.parametrize(
    ("precision", "fault", "expected"),
    [("fp32", *item) for item in MEANT_FOR.items()] + [("bf16", *item) for item in MEANT_FOR_IN_BF16.items()],
)
def test_planted_fault_fails_the_check_meant_for_it(
    tiny_spec: Spec, precision: str, fault: str, expected: list[str]
) -> None:
    assert set(expected) <= set(failed(checks_of(tiny_spec, precision, fault)))


def test_every_fault_is_tried() -> None:
    assert FAULTS.keys() == MEANT_FOR.keys() | MEANT_FOR_IN_BF16.keys() | {"none"}


def test_faults_of_the_optimiser_leave_the_model_alone(tiny_spec: Spec) -> None:
    """A check that fails on everything would prove nothing."""
    for fault in ("no bias correction", "no decay", "learning rate of the first step"):
        names = failed(checks_of(tiny_spec, "fp32", fault))
        assert not [name for name in names if name.startswith(("logits", "gradients", "preprocess", "precision"))]


def test_wrong_names_end_the_conformance(tiny_spec: Spec) -> None:
    (check,) = checks_of(tiny_spec, "fp32", "parameter left out").values()
    assert (check.passed, check.figure) == (False, 1)
    assert "norm.bias" in check.detail


def test_nan_is_a_failure_and_names_its_parameter(tiny_spec: Spec) -> None:
    check = checks_of(tiny_spec, "fp32", "NaN gradients")["gradients, initial weights"]
    assert check.figure is None
    assert "cls_token" in check.detail


def test_precision_check_says_what_it_found(tiny_spec: Spec) -> None:
    check = checks_of(tiny_spec, "bf16", "none")["precision, inference"]
    assert "8 bits of a weight and 8 of an activation" in check.detail
    check = checks_of(tiny_spec, "fp32", "TF32 products")["precision, inference"]
    assert (check.figure, check.bound) == (13, 0)
    assert "11 bits of a weight and 11 of an activation" in check.detail


def test_progress_rises_to_its_end(tiny_spec: Spec) -> None:
    reported: list[float] = []
    backend = ReferenceBackend(tiny_spec, "cpu", "fp32", "numpy")
    run_checks(backend, tiny_spec, "fp32", lambda done, text: reported.append(done), backend.clock)
    last_golden = reported.index(0.0, 1)
    assert reported[:last_golden] == sorted(reported[:last_golden])
    assert reported[last_golden:] == sorted(reported[last_golden:])
    assert 0.9 < max(reported) <= 1


def test_inputs_reach_what_they_are_meant_to(standard_spec: Spec) -> None:
    """Even steps are clipped far more than odd ones, and the learning rate rises and falls."""
    rates = probes.learning_rates(standard_spec)
    peak = rates.index(max(rates))
    assert len(rates) == probes.STEPS
    assert 2 < peak < probes.STEPS // 2
    assert rates[peak] == standard_spec.schedule.reference_lr
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    norms = golden.golden(standard_spec)["trace, gradient norm/value"]
    assert norms[::2].min() > 3 * max(norms[1::2].max(), standard_spec.optimizer.clip_norm)


def test_projections_estimate_a_distance() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 60, 50))
    difference = projections("w", a) - projections("w", b)
    assert np.sqrt(np.mean(difference**2)) == pytest.approx(np.linalg.norm(a - b), rel=0.6)
    assert not np.allclose(projections("w", a), projections("other", a))


def test_golden_values_of_the_standard_spec_are_committed_and_right(standard_spec: Spec) -> None:
    """Its first logits and gradients are computed anew; everything else took the same path as the tiny spec's."""
    path = golden.golden_path(standard_spec)
    assert path.exists(), "run `python -m shared_spec.conformance.golden` and commit what it writes"
    assert path.stat().st_size < 300_000
    kept = safetensors.numpy.load_file(path)
    batch = probes.probe_batch(standard_spec, 0)
    values = {name: value.astype(np.float64) for name, value in params.initial(standard_spec).items()}
    logits, pullback = reference.forward(standard_spec, values, batch.images)
    np.testing.assert_allclose(logits, kept["logits, initial weights/value"], rtol=1e-9, atol=1e-12)
    gradients = pullback(reference.cross_entropy(logits, batch.targets)[1])
    norms = [np.linalg.norm(gradients[name]) for name in params.shapes(standard_spec)]
    np.testing.assert_allclose(norms, kept["gradients, initial weights/norms"], rtol=1e-9)
    assert kept["trace, loss/value"][0] == pytest.approx(reference.cross_entropy(logits, batch.targets)[0], rel=1e-12)


def test_golden_values_are_found_by_what_they_depend_on(standard_spec: Spec) -> None:
    path = golden.golden_path(standard_spec)
    longer = standard_spec.changed(training=standard_spec.training.changed(epochs=300))
    assert golden.golden_path(longer) == path
    for section, change in {
        "model": {"layer_norm_eps": 1e-5},
        "init": {"seed": 1},
        "data": {"mean": (0.5, 0.5, 0.5)},
        "optimizer": {"eps": 1e-7},
        "schedule": {"final_lr": 1e-6},
    }.items():
        other = standard_spec.changed(**{section: getattr(standard_spec, section).changed(**change)})
        assert golden.golden_path(other) != path


def test_command_writes_golden_values(tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = golden.golden(tiny_spec)
    monkeypatch.setattr(golden, "GOLDEN_FOLDER", tmp_path)
    spec_file = tmp_path / "tiny.json"
    files.write(spec_file, tiny_spec.to_dict())
    done = CliRunner().invoke(golden.main, ["--spec", str(spec_file)])
    assert done.exit_code == 0, done.output
    written = safetensors.numpy.load_file(golden.golden_path(tiny_spec))
    assert written.keys() == computed.keys()
    assert all(np.array_equal(written[name], computed[name]) for name in written)
