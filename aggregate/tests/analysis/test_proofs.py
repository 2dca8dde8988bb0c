"""A result whose timed outputs failed a check is no result of this workload."""

from typing import Any

import pytest

from aggregate.tests.factory import FULL_PHASES, as_runs, make_result, outcome

CHECK = {"name": "timed logits, batch 8", "passed": True, "figure": 1e-6, "bound": 1e-5, "detail": "largest error"}
WRONG = CHECK | {"passed": False, "figure": 0.7}


def holder(result: dict[str, Any], phase: str) -> dict[str, Any]:
    """The measurements of a phase that hold its checks; of the search for the largest batch those of its first try."""
    measured: dict[str, Any] = outcome(result, phase)["measurements"]
    return measured["tries"][0]["measurements"] if phase == "max_batch" else measured


@pytest.mark.parametrize("phase", [phase for phase in FULL_PHASES if phase != "conformance"])
def test_a_check_of_any_phase_that_fails_fails_the_result(phase: str) -> None:
    for check, status in ((CHECK, "passed"), (WRONG, "failed")):
        content = make_result(phases=FULL_PHASES)
        holder(content, phase)["checks"] = [check]
        (run,) = as_runs(content)
        found, why = run.conformance
        assert found == status
        assert (f"{phase}: timed logits, batch 8 (0.7, bound 1e-05)" in why) == (status == "failed")
