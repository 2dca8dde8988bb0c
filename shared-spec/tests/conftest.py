"""What all tests share: the specs, and one thread for each product."""

import json
import os
from pathlib import Path

# Tests run side by side, and their products are small: threads of a product would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from shared_spec.workload.spec import Spec, load_spec, parse_spec


@pytest.fixture(scope="session")
def standard_spec() -> Spec:
    return load_spec()


@pytest.fixture(scope="session")
def tiny_spec(standard_spec: Spec) -> Spec:
    """The standard spec, small enough for a step in milliseconds."""
    content = standard_spec.to_dict()
    content["model"] |= {"image_size": 64, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    content["data"] |= {"train_images": 64, "test_images": 32}
    content["training"] |= {"batch_size": 4, "eval_batch_size": 16, "evaluations_per_epoch": 1}
    content["measuring"] |= {"block_seconds": 0.01}
    for profile in content["profiles"].values():
        for window in ("idle", "ceiling", "warmup_max", "window", "latency", "inference"):
            profile[f"{window}_seconds"] = 0.01
        profile |= {"window_min_steps": 2, "step_samples": 2, "latency_samples": 5, "inference_max_batch": 4}
    content["profiles"]["quick"] |= {"repeats": 1, "max_repeats": 1, "inference_repeats": 1}
    content["profiles"]["full"] |= {"repeats": 2, "max_repeats": 3, "inference_repeats": 2, "convergence_repeats": 1}
    return parse_spec(content, "tiny spec")


@pytest.fixture
def spec_file(tiny_spec: Spec, tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(tiny_spec.to_dict()))
    return path
