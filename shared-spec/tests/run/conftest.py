"""Runs that several tests read and none changes."""

import json
from pathlib import Path

import pytest
from fake_runs import asked, here

from shared_spec.workload.spec import Spec


@pytest.fixture(scope="session")
def trained(tiny_spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results folder of a finished full training with its weights kept, and what the run said."""
    folder = tmp_path_factory.mktemp("trained")
    spec_file = folder / "spec"
    spec_file.write_text(json.dumps(tiny_spec.to_dict()))
    done = here(*asked(spec_file, folder / "results", "convergence", "full"), "--keep-weights")
    assert done.returncode == 0, done.stderr
    return folder / "results", done.stdout
