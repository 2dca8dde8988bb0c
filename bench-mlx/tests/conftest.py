import os

import mlx.core as mx
import numpy as np
import pytest

from bench_mlx.backend import MlxBackend
from bench_mlx.platform import worker_env
from shared_spec.data import batches
from shared_spec.platform import Threads
from shared_spec.workload import params
from shared_spec.workload.spec import Spec, load_spec

AVAILABLE = {
    "cpu": True,
    "gpu": mx.metal.is_available(),
    "cuda": mx.cuda.is_available() and mx.device_count(mx.gpu) > 0,
}

os.environ.update(
    worker_env("gpu", "mlx", Threads(2))
)  # MLX reads TF32 off at its first product, not when it is imported

pytest.register_assert_rewrite("shared_spec.dev.rank_tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of ranks first: they take longest, one of two workers has them, and the other has the rest."""
    items.sort(key=lambda item: item.path.name != "test_ranks.py")


@pytest.fixture(params=[name for name, there in AVAILABLE.items() if there])
def device(request) -> str:
    """Each device of this machine in turn, as MLX's default."""
    mx.set_default_device(mx.cpu if request.param == "cpu" else mx.gpu)
    return request.param


@pytest.fixture(params=[name for name, there in AVAILABLE.items() if not there])
def missing_device(request) -> str:
    return request.param


@pytest.fixture
def spec() -> Spec:
    """The standard spec with a model and data small enough for a test."""
    standard = load_spec()
    return standard.changed(
        model=standard.model.changed(image_size=64, dim=32, depth=2, heads=2, mlp_dim=64),
        data=standard.data.changed(train_images=64, test_images=32),
        training=standard.training.changed(batch_size=4),
    )


@pytest.fixture
def weights(spec: Spec) -> params.Params:
    """Weights larger than the initial ones, so that attention is uneven and GELU is away from its straight parts."""
    random = np.random.default_rng(0)
    return {name: random.normal(0.0, 0.2, shape).astype(np.float32) for name, shape in params.shapes(spec).items()}


@pytest.fixture
def host_batch(spec: Spec) -> batches.HostBatch:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (4, 32, 32, 3), np.uint8)
    labels = random.integers(0, 100, 4)
    return batches.HostBatch(images, batches.soft_targets(labels, spec.model.classes, spec.data.label_smoothing))


@pytest.fixture
def make(spec, weights, device):
    """Build a backend of a precision, with `weights` loaded."""

    def build(precision: str = "fp32", spec: Spec = spec) -> MlxBackend:
        backend = MlxBackend(spec, device, precision, "mlx")
        backend.load_params(weights)
        return backend

    return build
