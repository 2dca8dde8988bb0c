"""A small workload, one batch of it, and a backend for each precision."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda.backend import TfBackend
from shared_spec.data.batches import soft_targets
from shared_spec.workload import params
from shared_spec.workload.spec import Spec, load_spec

pytest.register_assert_rewrite("shared_spec.dev.rank_tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of ranks first: they take longest, one of two workers has them, and the other has the rest."""
    items.sort(key=lambda item: item.path.name != "test_ranks.py")


@pytest.fixture(scope="session")
def spec() -> Spec:
    standard = load_spec()
    return standard.changed(
        model=standard.model.changed(image_size=64, dim=32, depth=2, heads=2, mlp_dim=64),
        data=standard.data.changed(train_images=64, test_images=32),
        training=standard.training.changed(batch_size=4),
    )


@pytest.fixture(scope="session")
def host_batch(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Four random images and soft targets."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    return images, soft_targets(np.array([0, 1, 50, 99]), spec.model.classes, spec.data.label_smoothing)


@pytest.fixture(scope="session", params=["fp32", "bf16"])
def either(request: pytest.FixtureRequest, spec: Spec) -> TfBackend:
    """A backend of each precision in turn, shared because compiling takes seconds."""
    return TfBackend(spec, "cpu", request.param, "xla")


@pytest.fixture
def backend(either: TfBackend, spec: Spec) -> TfBackend:
    """The backend with the specified initial values and a fresh optimiser."""
    either.load_params(params.initial(spec))
    return either


@pytest.fixture
def exhausted() -> Callable[..., tf.Tensor]:
    """A compiled program for which there is no memory."""

    def run(*operands: tf.Tensor) -> tf.Tensor:
        raise tf.errors.ResourceExhaustedError(None, None, "Out of memory while trying to allocate 9 bytes.\nmore")

    return run
