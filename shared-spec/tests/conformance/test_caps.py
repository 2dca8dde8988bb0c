"""The largest bounds that checks may have."""

import pytest

from shared_spec.conformance.caps import exceeds, largest_bound
from shared_spec.workload.spec import Precision, Spec


@pytest.mark.parametrize(
    ("name", "precision", "bound"),
    [  # bounds that conformance stated for the standard workload (results of November 2026)
        ("parameters", "fp32", 0.0), ("preprocess", "fp32", 2.1452643202039484e-06),
        ("late step, parameters", "fp32", 0.20238210062794562),
        ("preprocess", "bf16", 0.14059204248888596), ("logits, initial weights", "fp32", 8.218050819605827e-06),
        ("gradients, small variance", "bf16", 0.10730636342676421), ("trace, loss", "fp32", 0.0001654559170769854),
        ("trace, second moments", "bf16", 0.024747861662373843), ("trace, key biases", "bf16", 3.1622776601683773),
        ("weight decay", "fp32", 4.76837158203125e-07), ("AdamW", "fp32", 0.001431591110197451),
        ("precision, inference", "fp32", 0.0), ("precision, training", "bf16", 3.0), ("synchronize, inference", "fp32", 0.1),
    ],
)  # fmt: skip
def test_bounds_that_were_stated_are_within_and_larger_ones_are_not(
    standard_spec: Spec, name: str, precision: Precision, bound: float
) -> None:
    cap = largest_bound(name, standard_spec, precision)
    assert cap is not None
    assert not exceeds(bound, cap)
    assert exceeds(max(100 * bound, 1.0 + bound), cap)


def test_what_timed_outputs_are_held_to(standard_spec: Spec) -> None:
    for name in ("timed logits, batch 64", "parameters changed, batch 1", "infer, train, infer, batch 4", "product",
                 "late step, clip", "second step, clip", "precision, GELU"):  # fmt: skip
        for precision in ("fp32", "bf16"):
            cap = largest_bound(name, standard_spec, precision)
            assert cap is not None
            assert 0 < cap < 1
    assert largest_bound("precision, batch 8", standard_spec, "bf16") == 0
    assert exceeds(float("nan"), 1.0)


def test_nothing_is_said_of_other_checks_and_other_workloads(standard_spec: Spec, tiny_spec: Spec) -> None:
    assert largest_bound("a check of tomorrow", standard_spec, "fp32") is None
    assert largest_bound("parameters", tiny_spec, "fp32") is None
