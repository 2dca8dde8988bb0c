"""The packed forward pass against the model's own, and that it never answers with weights of the past."""

import numpy as np
import pytest
import torch

from bench_torch_ipex import backend as torch_backend
from bench_torch_ipex import ops
from bench_torch_ipex.backend import TorchBackend
from bench_torch_ipex.inference import Inference
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

pytestmark = pytest.mark.skipif(not ops.has_onednn(torch.float32), reason="this PyTorch has no oneDNN")
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05}


@pytest.fixture
def weights(tiny_spec: Spec) -> params.Params:
    """Weights larger than the initial ones, so that attention is uneven and GELU is away from its straight parts."""
    random = np.random.default_rng(0)
    return {name: random.normal(0.0, 0.2, shape).astype(np.float32) for name, shape in params.shapes(tiny_spec).items()}


@pytest.fixture(params=["fp32", "bf16"])
def loaded(request: pytest.FixtureRequest, tiny_spec: Spec, engine: str, weights: params.Params) -> TorchBackend:
    backend = TorchBackend(tiny_spec, "cpu", request.param, engine)
    backend.load_params(weights)
    return backend


def logits(backend: TorchBackend, images: np.ndarray) -> np.ndarray:
    return backend.to_numpy(backend.infer(backend.to_device(images, None)))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_it_computes_the_model(
    loaded: TorchBackend, images: np.ndarray, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = logits(loaded, images[:count])
    assert isinstance(loaded._inference, Inference)
    monkeypatch.setattr(torch_backend, "has_onednn", lambda dtype: False)
    own = logits(loaded, images[:count])
    assert np.linalg.norm(packed - own) <= TOLERANCE[loaded.precision] * np.linalg.norm(own)


def test_a_training_step_between_two_inferences_counts(
    loaded: TorchBackend, images: np.ndarray, targets: np.ndarray
) -> None:
    before = logits(loaded, images)
    np.testing.assert_array_equal(logits(loaded, images), before)
    loaded.train_step(loaded.to_device(images, targets), 0.01)
    after = logits(loaded, images)
    assert np.abs(after - before).max() > 0.01
    fresh = TorchBackend(loaded.spec, "cpu", loaded.precision, loaded.engine)
    fresh.load_params(loaded.export_params())
    np.testing.assert_array_equal(logits(fresh, images), after)


def test_loading_weights_anew_counts(loaded: TorchBackend, images: np.ndarray, weights: params.Params) -> None:
    before = logits(loaded, images)
    loaded.load_params({name: 2 * value for name, value in weights.items()})
    assert np.abs(logits(loaded, images) - before).max() > 0.01
    loaded.load_params(weights)
    np.testing.assert_array_equal(logits(loaded, images), before)
