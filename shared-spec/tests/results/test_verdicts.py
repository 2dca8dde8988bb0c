"""What is said of a phase as it ends."""

from typing import Any

import pytest

from shared_spec.results import verdicts
from shared_spec.results.measurements import (
    Conformance,
    Convergence,
    Evaluation,
    Inference,
    InferenceSize,
    Latency,
    Training,
)
from shared_spec.results.quantities import Check, Energy
from shared_spec.workload.spec import Spec


def energy(joules: float | None) -> Energy:
    reason = "no meter" if joules is None else None
    return Energy(joules=joules, reason=reason, source="none", scope="nothing", samples=0)


def training(**changed: Any) -> Training:
    measured = {"batch_size": 32, "window_blocks": ((10, 1.0), (10, 1.01)) * 6, "steady": True, "energy": energy(None)}
    return Training.model_construct(**{**measured, **changed})


def test_training_tells_rate_interval_power_and_what_is_wrong(tiny_spec: Spec) -> None:
    assert verdicts.training(training(), tiny_spec).endswith(", stable")
    assert verdicts.training(training(), tiny_spec).startswith("318.4 images/s, 95 % within this process 317")
    metered = verdicts.training(training(energy=energy(12.06 * 250)), tiny_spec)
    assert ", 250 W, stable" in metered
    assert "had not become steady" in verdicts.training(training(steady=False), tiny_spec)


def test_latency_and_inference(tiny_spec: Spec) -> None:
    samples = tuple(0.001 * i for i in range(1, 102))
    latency = Latency.model_construct(host_to_host_seconds=samples, steady=True)
    assert verdicts.latency(latency, tiny_spec) == "median 51 ms, p90 91 ms of 101 samples"
    sizes = (
        InferenceSize.model_construct(batch_size=1, window_blocks=((10, 1.0),)),
        InferenceSize.model_construct(batch_size=8, window_blocks=((5, 1.0),)),
    )
    inference = Inference.model_construct(sizes=sizes)
    assert verdicts.inference(inference, tiny_spec) == "at best 40 images/s, at batch 8"


def test_conformance_names_what_failed(tiny_spec: Spec) -> None:
    logits = Check.model_construct(name="logits", passed=True)
    gradients = Check.model_construct(name="gradients", passed=False)
    failed, passed = (Conformance.model_construct(checks=checks) for checks in ((logits, gradients), (logits,)))
    assert verdicts.conformance(failed, tiny_spec) == "FAILED gradients"
    assert verdicts.conformance(passed, tiny_spec) == "1 checks passed"


@pytest.mark.parametrize(
    ("epochs_to_target", "words"),
    [
        (2, "target of 45.0% reached after 2 epochs, 20 s, best 46.0%"),
        (None, "target of 45.0% NOT reached in 2 epochs"),
    ],
)
def test_convergence_says_reached_or_not(tiny_spec: Spec, epochs_to_target: int | None, words: str) -> None:
    rows = tuple(Evaluation.model_construct(top1=top1, step=10 * i) for i, top1 in enumerate((0.3, 0.46), 1))
    measured = Convergence.model_construct(
        evaluations=rows, steps_per_epoch=10, target_top1=0.45, images=3000, seconds=20.0, epochs_to_target=epochs_to_target,
        seconds_to_target=20.0 if epochs_to_target else None,
    )  # fmt: skip
    verdict = verdicts.convergence(measured, tiny_spec)
    assert words in verdict
    assert verdict.endswith("150 images/s")
