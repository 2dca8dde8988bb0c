"""Small specs and both engines for the tests of this package."""

import numpy as np
import pytest

from bench_torch_ipex.backend import TorchBackend
from bench_torch_ipex.platform import PLATFORM
from shared_spec.data.batches import soft_targets
from shared_spec.workload import params
from shared_spec.workload.spec import Spec, load_spec, parse_spec

pytest.register_assert_rewrite("shared_spec.dev.rank_tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of ranks first: they take longest, one of two workers has them, and the other has the rest."""
    items.sort(key=lambda item: item.path.name != "test_ranks.py")


@pytest.fixture(scope="session")
def tiny_spec() -> Spec:
    """The standard workload, small enough for a step in milliseconds."""
    content = load_spec().to_dict()
    content["model"] |= {"image_size": 64, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    content["data"] |= {"train_images": 64, "test_images": 32}
    content["training"] |= {"batch_size": 4, "eval_batch_size": 16}
    return parse_spec(content, "tiny spec")


@pytest.fixture(params=PLATFORM.engines)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backend(tiny_spec: Spec, engine: str) -> TorchBackend:
    made = TorchBackend(tiny_spec, "cpu", "fp32", engine)
    made.load_params(params.initial(tiny_spec))
    return made


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture
def targets() -> np.ndarray:
    return soft_targets(np.array([3, 14, 15, 92]), 100, 0.1)
