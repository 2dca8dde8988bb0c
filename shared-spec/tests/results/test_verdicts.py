"""What is said of a phase as it ends."""

from typing import Any

import pytest

from shared_spec.results import verdicts
from shared_spec.workload.spec import Spec


def verdict(spec: Spec, phase: str, **measured: Any) -> str:
    return verdicts.of_phase({"phase": phase, "status": "ok", "measurements": measured}, spec)


def training(**changed: Any) -> dict[str, Any]:
    window = [[10, 1.0], [10, 1.01]] * 6
    return {"batch_size": 32, "window_blocks": window, "steady": True, "energy": {"joules": None}, **changed}


def test_training_tells_rate_interval_power_and_what_is_wrong(tiny_spec: Spec) -> None:
    assert verdict(tiny_spec, "training", **training()).endswith(", stable")
    assert verdict(tiny_spec, "training", **training()).startswith("318.4 images/s, 95 % within this process 317")
    metered = verdict(tiny_spec, "training", **training(energy={"joules": 12.06 * 250}))
    assert ", 250 W, stable" in metered
    assert "had not become steady" in verdict(tiny_spec, "training", **training(steady=False))


def test_latency_and_inference(tiny_spec: Spec) -> None:
    samples = [0.001 * i for i in range(1, 102)]
    found = verdict(tiny_spec, "latency", host_to_host_seconds=samples, steady=True)
    assert found == "median 51 ms, p90 91 ms of 101 samples"
    sizes = [{"batch_size": 1, "window_blocks": [[10, 1.0]]}, {"batch_size": 8, "window_blocks": [[5, 1.0]]}]
    assert verdict(tiny_spec, "inference", sizes=sizes) == "at best 40 images/s, at batch 8"


def test_conformance_names_what_failed(tiny_spec: Spec) -> None:
    checks = [{"name": "logits", "passed": True}, {"name": "gradients", "passed": False}]
    assert verdict(tiny_spec, "conformance", checks=checks) == "FAILED gradients"
    assert verdict(tiny_spec, "conformance", checks=checks[:1]) == "1 checks passed"


@pytest.mark.parametrize(
    ("epochs_to_target", "words"),
    [
        (2, "target of 45.0% reached in epoch 2 after 20 s, best 46.0%"),
        (None, "target of 45.0% NOT reached in 2 epochs"),
    ],
)
def test_convergence_says_reached_or_not(tiny_spec: Spec, epochs_to_target: int | None, words: str) -> None:
    found = verdict(
        tiny_spec, "convergence", epochs=[{"top1": 0.3}, {"top1": 0.46}], target_top1=0.45, images=3000, seconds=20.0,
        epochs_to_target=epochs_to_target, seconds_to_target=20.0 if epochs_to_target else None,
    )  # fmt: skip
    assert words in found
    assert found.endswith("150 images/s")


def test_a_failed_phase_has_no_verdict(tiny_spec: Spec) -> None:
    assert verdicts.of_phase({"phase": "training", "status": "failed", "measurements": None}, tiny_spec) == ""
