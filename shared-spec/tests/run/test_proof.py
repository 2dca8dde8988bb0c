"""The proof of a phase: its checks stand in the outcome, and one that cannot be given is one that fails."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from shared_spec.conformance import losses
from shared_spec.data import synthetic
from shared_spec.results.quantities import Check
from shared_spec.run import proof
from shared_spec.run.phases import PHASES
from shared_spec.workload.spec import Spec

GOOD = Check(name="good", passed=True, figure=0.0, bound=1.0, detail="x")


def test_every_phase_that_times_something_has_a_proof() -> None:
    assert [phase.name for phase in PHASES if phase.proof is None] == ["conformance"]


def test_a_proof_that_breaks_keeps_what_it_has_and_fails() -> None:
    def breaks(context: Any, measured: Any) -> Iterator[Check]:
        yield GOOD
        raise ValueError("in /home/ada/x.py")

    good, broken = proof.complete(breaks, None, None)  # type: ignore[arg-type]
    assert good == GOOD
    assert not broken.passed
    assert "ValueError" in broken.detail
    assert "ada" not in broken.detail


def test_what_was_compared_with_nothing_is_said(
    tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = synthetic.identity(tiny_spec)
    job = SimpleNamespace(batch_size=4, seed=7)
    context: Any = SimpleNamespace(job=job, which=which, spec=tiny_spec)
    said = proof.unchecked(context, "training")
    assert said is not None
    assert said.startswith("no golden losses of seed 7, batch 4, data synthetic")
    assert proof.unchecked(context, "latency") is None
    monkeypatch.setattr(losses, "LOSSES_FOLDER", tmp_path)
    safetensors.numpy.save_file({"loss/value": np.ones(1)}, losses.losses_path(tiny_spec, which, 4, 7))
    assert proof.unchecked(context, "training") is None
