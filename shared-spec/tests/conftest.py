"""What all tests share: the specs and the real CIFAR-100."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Tests run side by side, and their products are small: threads of a product would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from shared_spec.data import cifar100
from shared_spec.data.cifar100 import Dataset
from shared_spec.workload.spec import Spec, load_spec, parse_spec

BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "data" / "cifar-100-python.tar.gz"


@pytest.fixture(scope="session")
def standard_spec() -> Spec:
    return load_spec()


@pytest.fixture(scope="session")
def tiny_spec(standard_spec: Spec) -> Spec:
    """The standard spec, small enough for a step in milliseconds."""
    content = standard_spec.to_dict()
    content["model"] |= {"image_size": 64, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    content["data"] |= {"train_images": 64, "test_images": 32}
    content["training"] |= {"batch_size": 4, "eval_batch_size": 16}
    content["measuring"] |= {"block_seconds": 0.01}
    for profile in content["profiles"].values():
        for window in ("idle", "ceiling", "warmup_max", "window", "latency", "inference"):
            profile[f"{window}_seconds"] = 0.01
        profile |= {"window_min_steps": 2, "step_samples": 2, "latency_samples": 5, "inference_max_batch": 4}
    content["profiles"]["full"] |= {"repeats": 2, "max_repeats": 3}
    return parse_spec(content, "tiny spec")


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """CIFAR-100's archive: $CIFAR100_ARCHIVE, else beside the checkout, else the test is skipped."""
    named = os.environ.get("CIFAR100_ARCHIVE")
    archive = Path(named) if named else BESIDE_THE_CHECKOUT
    if archive.is_file():
        return archive
    if named:
        pytest.fail(f"$CIFAR100_ARCHIVE: {archive} is not a file")
    pytest.skip("NOT TESTED ON REAL DATA: set $CIFAR100_ARCHIVE to cifar-100-python.tar.gz")


@pytest.fixture(scope="session")
def real_folder(real_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cifar100")
    yield cifar100.extract(real_archive, folder)
    shutil.rmtree(folder)  # pytest would keep 186 MB of each of its last three runs


@pytest.fixture(scope="session")
def real_dataset(real_folder: Path) -> Dataset:
    return cifar100.read(real_folder)


@pytest.fixture
def spec_file(tiny_spec: Spec, tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(tiny_spec.to_dict()))
    return path
