"""Which software measured."""

from pathlib import Path

from shared_spec.machine import provenance


def test_git_state_outside_a_checkout(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == (None, None)
