"""What the protocol asks of this backend, on a tiny spec; that it is the specified model is conformance's part."""

import re

import numpy as np
import pytest
import torch

from bench_torch_ipex.backend import TorchBackend
from bench_torch_ipex.model import DeiT
from bench_torch_ipex.ops import has_onednn
from shared_spec.errors import UserError
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def test_names_and_shapes_are_timms(tiny_spec: Spec) -> None:
    found = {name: tuple(p.shape) for name, p in DeiT(tiny_spec).named_parameters()}
    assert found == params.shapes(tiny_spec)


def test_load_then_export_is_the_identity(backend: TorchBackend, tiny_spec: Spec) -> None:
    assert params.fingerprint(backend.export_params()) == params.fingerprint(params.initial(tiny_spec))


def test_exported_arrays_do_not_change_with_later_steps(
    backend: TorchBackend, images: np.ndarray, targets: np.ndarray
) -> None:
    exported, state = backend.export_params(), backend.export_state()
    before = exported["head.weight"].copy()
    backend.train_step(backend.to_device(images, targets), 1e-2)
    assert (exported["head.weight"] == before).all()
    assert (state["param/head.weight"] == before).all()


def test_a_step_returns_loss_and_unclipped_norm(backend: TorchBackend, images: np.ndarray, targets: np.ndarray) -> None:
    batch = backend.to_device(images, targets)
    gradients = backend.gradients(batch)
    loss, norm = backend.to_numpy(backend.train_step(batch, 1e-3))
    assert 4.5 < loss < 4.8
    assert norm == pytest.approx(np.sqrt(sum((g.astype(float) ** 2).sum() for g in gradients.values())), rel=1e-4)


def test_gradients_leave_no_trace(backend: TorchBackend, images: np.ndarray, targets: np.ndarray) -> None:
    batch = backend.to_device(images, targets)
    first = backend.gradients(batch)
    before = params.fingerprint(backend.export_params())
    second = backend.gradients(batch)
    assert params.fingerprint(backend.export_params()) == before
    for name, gradient in first.items():
        np.testing.assert_allclose(second[name], gradient, rtol=1e-4, atol=1e-7, err_msg=name)


def test_state_round_trip_continues_as_if_nothing_had_happened(
    backend: TorchBackend, engine: str, tiny_spec: Spec, images: np.ndarray, targets: np.ndarray
) -> None:
    batch = backend.to_device(images, targets)
    for _ in range(3):
        backend.train_step(batch, 1e-3)
    state = backend.export_state()
    assert int(state["step"]) == 3
    other = TorchBackend(tiny_spec, "cpu", "fp32", engine)
    other.load_state(state)
    for _ in range(3):
        ours = backend.to_numpy(backend.train_step(batch, 1e-3))
        theirs = other.to_numpy(other.train_step(batch, 1e-3))
    assert (ours == theirs).all()
    assert params.fingerprint(backend.export_params()) == params.fingerprint(other.export_params())


def test_loading_parameters_forgets_the_optimiser(
    backend: TorchBackend, tiny_spec: Spec, images: np.ndarray, targets: np.ndarray
) -> None:
    batch = backend.to_device(images, targets)
    first = backend.to_numpy(backend.train_step(batch, 1e-3))
    backend.load_params(params.initial(tiny_spec))
    assert int(backend.export_state()["step"]) == 0
    np.testing.assert_allclose(backend.to_numpy(backend.train_step(batch, 1e-3)), first, rtol=1e-5)


def test_inference_follows_training(backend: TorchBackend, images: np.ndarray, targets: np.ndarray) -> None:
    batch = backend.to_device(images, None)
    before = backend.to_numpy(backend.infer(batch))
    assert before.shape == (4, 100)
    assert before.dtype == np.float32
    backend.train_step(backend.to_device(images, targets), 1e-2)
    assert np.abs(backend.to_numpy(backend.infer(batch)) - before).max() > 1e-3


def test_inference_takes_any_batch(backend: TorchBackend, images: np.ndarray) -> None:
    whole = backend.to_numpy(backend.infer(backend.to_device(images, None)))
    one = backend.to_numpy(backend.infer(backend.to_device(images[2:3], None)))
    np.testing.assert_allclose(one[0], whole[2], rtol=1e-4, atol=1e-5)


def test_bf16_keeps_float32_masters(tiny_spec: Spec, engine: str, images: np.ndarray, targets: np.ndarray) -> None:
    backend = TorchBackend(tiny_spec, "cpu", "bf16", engine)
    backend.load_params(params.initial(tiny_spec))
    backend.train_step(backend.to_device(images, targets), 1e-3)
    weight = torch.from_numpy(backend.export_params()["blocks.0.mlp.fc1.weight"])
    assert (weight != weight.bfloat16().float()).float().mean() > 0.9  # more digits than bf16 can hold


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "dtype"])
def test_wrong_parameters_are_named(backend: TorchBackend, tiny_spec: Spec, fault: str) -> None:
    values = params.initial(tiny_spec)
    match fault:
        case "missing":
            del values["norm.bias"]
        case "unknown":
            values["norm.gamma"] = values["norm.weight"]
        case "shape":
            values["norm.bias"] = values["norm.bias"][:5]
        case "dtype":
            values["norm.bias"] = values["norm.bias"].astype(np.float64)
    with pytest.raises(UserError, match=r"norm\.(bias|gamma)"):
        backend.load_params(values)


def test_description_says_which_engine_ran(backend: TorchBackend, engine: str) -> None:
    described = backend.describe()
    assert described["engine"] == engine
    assert described["details"]["ipex_active"] is (engine == "ipex")
    assert bool(described["details"]["onednn_isa"]) is (engine == "ipex")  # PyTorch alone does not tell
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", described["details"]["onednn_version"])
    assert (described["details"]["product_kernel"] is not None) == has_onednn(torch.float32)
    assert described["precision"] == {"requested": "fp32", "effective": "fp32"}


def test_other_devices_are_refused(tiny_spec: Spec) -> None:
    with pytest.raises(UserError, match="cpu only"):
        TorchBackend(tiny_spec, "cuda", "fp32", "stock")


def test_missing_ipex_is_told_with_the_way_out(tiny_spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "intel_extension_for_pytorch", None)
    with pytest.raises(UserError, match="--engine stock"):
        TorchBackend(tiny_spec, "cpu", "fp32", "ipex")


def test_clip_bounds_the_update(tiny_spec: Spec, images: np.ndarray, targets: np.ndarray) -> None:
    def after_one_step(clip_norm: float) -> dict[str, np.ndarray]:
        spec = tiny_spec.changed(optimizer=tiny_spec.optimizer.changed(clip_norm=clip_norm))
        backend = TorchBackend(spec, "cpu", "fp32", "stock")
        backend.load_params(params.initial(spec))
        backend.train_step(backend.to_device(images, targets), 1e-3)
        return backend.export_state()

    loose, tight = after_one_step(1e9), after_one_step(1e-3)
    ratio = np.linalg.norm(tight["m/head.weight"]) / np.linalg.norm(loose["m/head.weight"])
    assert ratio < 0.01
