import dataclasses
import gc
import json
import os
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from bench_mlx import backend as module
from bench_mlx.backend import MlxBackend, keep_kernels_apart
from bench_mlx.model import DeiT
from shared_spec.backend import DeviceWatchdog, OutOfMemory
from shared_spec.errors import UserError
from shared_spec.workload import params

LR = 1e-3

bit_exact = pytest.mark.parametrize("device", ["cpu"])  # a GPU may add up in another order the next time


def steps(backend, host_batch, learning_rates):
    """Loss and norm of one step per learning rate, all on the same batch: float32 [steps, 2]."""
    batch = backend.to_device(host_batch.images, host_batch.targets)
    return np.array([backend.to_numpy(backend.train_step(batch, lr)) for lr in learning_rates])


def assert_same_arrays(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def adamw(o, state, gradients, lr):
    """The specified update in float64, from export_state's arrays: clip, bias correction, decay groups."""
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values()))
    t = int(state["step"]) + 1
    updated = {"step": np.array(t)}
    for name, gradient in gradients.items():
        p, m, v = (state[f"{kind}/{name}"].astype(np.float64) for kind in ("param", "m", "v"))
        g = gradient * min(1.0, o.clip_norm / (norm + 1e-6))
        m = o.beta1 * m + (1 - o.beta1) * g
        v = o.beta2 * v + (1 - o.beta2) * g**2
        if gradient.ndim > 1 and name not in ("cls_token", "pos_embed"):
            p = p - lr * o.weight_decay * p
        p = p - lr * (m / (1 - o.beta1**t)) / (np.sqrt(v / (1 - o.beta2**t)) + o.eps)
        updated |= {f"param/{name}": p, f"m/{name}": m, f"v/{name}": v}
    return updated, norm


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loaded_parameters_come_back_unchanged(make, weights, precision):
    assert_same_arrays(make(precision).export_params(), weights)


@bit_exact
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loaded_state_continues_bit_for_bit(make, host_batch, precision):
    first = make(precision)
    steps(first, host_batch, [LR, 2 * LR])
    state = first.export_state()
    expected = steps(first, host_batch, [3 * LR, LR])
    second = make(precision)
    second.load_state(state)
    assert_same_arrays(second.export_state(), state)
    np.testing.assert_array_equal(steps(second, host_batch, [3 * LR, LR]), expected)
    assert_same_arrays(second.export_state(), first.export_state())


def test_state_has_the_names_and_types_of_the_protocol(make, spec, host_batch):
    backend = make()
    steps(backend, host_batch, [LR])
    state = backend.export_state()
    shapes = params.shapes(spec)
    assert state.pop("step") == 1
    assert {key: value.shape for key, value in state.items()} == {
        f"{kind}/{name}": shape for kind in ("param", "m", "v") for name, shape in shapes.items()
    }
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


@bit_exact
def test_loading_parameters_starts_the_optimiser_afresh(make, weights, host_batch):
    backend = make()
    expected = steps(backend, host_batch, [LR, LR])
    backend.load_params(weights)
    np.testing.assert_array_equal(steps(backend, host_batch, [LR, LR]), expected)


def test_compiles_once_per_batch_size(make, weights, host_batch, monkeypatch):
    traced = []
    forward = DeiT.__call__
    monkeypatch.setattr(DeiT, "__call__", lambda self, images: traced.append(len(images)) or forward(self, images))
    backend = make()
    steps(backend, host_batch, [LR, 2 * LR, 3 * LR])
    backend.load_params(weights)
    steps(backend, host_batch, [4 * LR])
    half = dataclasses.replace(host_batch, images=host_batch.images[:2], targets=host_batch.targets[:2])
    steps(backend, half, [LR, 2 * LR])
    steps(backend, host_batch, [5 * LR])
    assert traced == [4, 2]


@pytest.mark.parametrize("clip_norm", [1.0, 1e6])
def test_step_is_the_specified_update(make, spec, host_batch, clip_norm):
    # An eps large enough to see on which side of the bias correction it stands.
    spec = spec.changed(optimizer=spec.optimizer.changed(clip_norm=clip_norm, eps=1e-3))
    backend = make(spec=spec)
    batch = backend.to_device(host_batch.images, host_batch.targets)
    dim = spec.model.dim
    for lr in (LR, 3 * LR, 2 * LR):
        before = backend.export_state()
        expected, norm = adamw(spec.optimizer, before, backend.gradients(batch), lr)
        _, measured = backend.to_numpy(backend.train_step(batch, lr))
        after = backend.export_state()
        assert measured == pytest.approx(norm, rel=1e-6)
        assert after["step"] == expected["step"]
        for key in before.keys() - {"step"}:
            moved, wanted = (state[key].astype(np.float64) - before[key] for state in (after, expected))
            if key.endswith("qkv.bias"):  # the keys' bias shifts all scores alike: its gradient is rounding and no more
                moved, wanted = (np.delete(change, np.s_[dim : 2 * dim]) for change in (moved, wanted))
            # Rounding of the stored float32 value, and of the change itself.
            error = np.abs(moved - wanted) / (np.abs(before[key]).max() * 2**-23 + np.abs(wanted).max() * 1e-5)
            assert error.max() < 1, key


def test_gradients_leave_everything_as_it_was(make, host_batch):
    backend = make()
    steps(backend, host_batch, [LR])
    before = backend.export_state()
    backend.gradients(backend.to_device(host_batch.images, host_batch.targets))
    assert_same_arrays(backend.export_state(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_few_steps_learn_a_batch_by_heart(make, host_batch, precision):
    losses = steps(make(precision), host_batch, [LR] * 40)[:, 0]
    assert losses[-1] < losses[0] - 1


def test_infer_gives_float32_logits_whatever_the_batch(make, host_batch):
    backend = make()
    logits = backend.to_numpy(backend.infer(backend.to_device(host_batch.images, None)))
    one = backend.to_numpy(backend.infer(backend.to_device(host_batch.images[2:3], None)))
    assert logits.shape == (4, 100)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(one[0], logits[2], rtol=0, atol=1e-4)


@bit_exact
def test_infer_follows_training(make, host_batch):
    backend = make("bf16")
    batch = backend.to_device(host_batch.images, host_batch.targets)
    before = backend.to_numpy(backend.infer(batch))
    backend.train_step(batch, LR)
    after = backend.to_numpy(backend.infer(batch))
    fresh = make("bf16")
    fresh.load_params(backend.export_params())
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(after, fresh.to_numpy(fresh.infer(batch)))


def test_bf16_keeps_float32_masters(make, weights, host_batch):
    tiny = 1e-7  # much less than the 2^-9 of its value by which a bf16 parameter can move
    backend = make("bf16")
    steps(backend, host_batch, [tiny])
    moved = np.abs(backend.export_params()["head.weight"] - weights["head.weight"])
    assert 0 < moved.max() < 1e-6


def test_bf16_computes_in_bf16(make, host_batch):
    logits = {}
    for precision in ("fp32", "bf16"):
        backend = make(precision)
        logits[precision] = backend.to_numpy(backend.infer(backend.to_device(host_batch.images, None)))
    difference = np.abs(logits["bf16"] - logits["fp32"]).max() / np.abs(logits["fp32"]).max()
    assert 1e-4 < difference < 0.1
    np.testing.assert_array_equal(logits["bf16"].view(np.uint32) & 0xFFFF, 0)  # values that bf16 can hold


def test_preprocess_is_channels_last_float32(make, spec, host_batch):
    backend = make("bf16")
    image = backend.to_numpy(backend.preprocess(backend.to_device(host_batch.images, None)))
    assert image.shape == (4, spec.model.image_size, spec.model.image_size, 3)
    corner = (host_batch.images[:, 0, 0] / 255.0 - spec.data.mean) / spec.data.std  # clamped there: not interpolated
    np.testing.assert_allclose(image[:, 0, 0], corner, rtol=0, atol=1e-6)


def test_synchronize_waits_for_what_nobody_dispatched(make):
    backend = make()
    backend.synchronize()
    before = mx.get_active_memory()
    product = mx.full((512, 512), 1 / 512)
    for _ in range(20):
        product = product @ product
    backend.synchronize(product)
    # Not evaluated, nothing would be allocated; still computing, the factors of all products would be.
    assert mx.get_active_memory() - before == pytest.approx(product.nbytes, rel=0.1)


def test_steps_in_flight_are_bounded(make, host_batch, monkeypatch):
    waited = []
    evaluate = mx.eval
    backend = make()
    batch = backend.to_device(host_batch.images, host_batch.targets)
    monkeypatch.setattr(mx, "eval", lambda *arrays: waited.append(arrays) or evaluate(*arrays))
    handles = [backend.train_step(batch, LR) for _ in range(5)]
    assert [arrays[0] is handle for arrays, handle in zip(waited, handles, strict=False)] == [True] * 3
    assert module.IN_FLIGHT == 2


def test_state_is_resident_once(make, spec, host_batch):
    gc.collect()
    mx.synchronize()
    before = mx.get_active_memory()
    backend = make()
    batch = backend.to_device(host_batch.images, host_batch.targets)
    for _ in range(5):
        backend.train_step(batch, LR)
    backend.synchronize()
    resident = mx.get_active_memory() - before
    assert resident == pytest.approx(3 * 4 * params.count(spec), rel=0.2)  # parameters and two moments


def test_memory_is_told_in_bytes(make, host_batch):
    backend = make()
    backend.reset_peak_memory()
    steps(backend, host_batch, [LR])
    memory = backend.memory()
    assert set(memory) == {"mlx_peak", "mlx_active", "mlx_cache"}
    assert memory["mlx_peak"] > memory["mlx_active"] > 0


@pytest.mark.parametrize(("precision", "bits"), [("fp32", 32), ("bf16", 16)])
def test_matmul_multiplies_at_the_precision(make, precision, bits):
    backend = make(precision)
    product = backend.matmul(64)
    assert product.dtype.size * 8 == bits
    assert product.shape == (64, 64)
    np.testing.assert_array_equal(backend.to_numpy(product), backend.to_numpy(backend.matmul(64)))
    assert np.abs(backend.to_numpy(product)).max() > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_describe_says_what_runs(make, device, precision):
    description = json.loads(json.dumps(make(precision).describe()))
    keys = {"framework", "framework_version", "engine", "device", "compile_mode", "precision", "details"}
    assert set(description) == keys
    assert description["framework"] == "mlx"
    assert description["device"]["kind"] == device
    assert description["precision"]["requested"] == precision
    assert description["precision"]["effective"].startswith(precision)
    assert all(not isinstance(value, dict | list) for value in description["details"].values())


def test_tf32_does_not_pass_for_fp32(make, monkeypatch):
    backend = make()
    # TF32 keeps as much of an operand's fraction as float16 does: 10 bits.
    monkeypatch.setattr(mx, "full", lambda shape, value: mx.ones(shape) * float(np.float16(value)))
    assert backend.describe()["precision"]["effective"] == "tf32"


def test_a_device_that_is_not_there_is_refused(spec, missing_device):
    with pytest.raises(UserError, match=f"--device {missing_device}: MLX finds no"):
        MlxBackend(spec, missing_device, "fp32", "mlx")


def test_wrong_parameters_are_refused(make, weights):
    backend = make()
    with pytest.raises(UserError, match=r"head\.bias has shape \[7\]"):
        backend.load_params(weights | {"head.bias": np.zeros(7, np.float32)})
    state = backend.export_state()
    del state["v/cls_token"]
    with pytest.raises(UserError, match="v: parameter cls_token is missing"):
        backend.load_state(state)
    assert_same_arrays(backend.export_params(), weights)


@pytest.mark.parametrize(
    "message",
    [
        "[malloc] Unable to allocate 1099511627776 bytes.",
        "[metal::malloc] Attempting to allocate 2 bytes which is greater than the maximum allowed buffer size of 1.",
        "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackError)",
        "cudaMallocAsync(&data, size, stream) failed: out of memory",
    ],
)
def test_exhausted_memory_has_a_name_of_its_own(make, host_batch, monkeypatch, message):
    backend = make()
    batch = backend.to_device(host_batch.images, host_batch.targets)

    def fail(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(mx, "async_eval", fail)
    for call in (lambda: backend.train_step(batch, LR), lambda: backend.infer(batch), lambda: backend.matmul(8)):
        with pytest.raises(OutOfMemory):
            call()


@pytest.mark.parametrize(
    "message",
    [
        "[METAL] Command buffer execution failed: Impacting Interactivity "
        "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity).",
        "[METAL] Command buffer execution failed: Caused GPU Timeout Error "
        "(00000002:kIOGPUCommandBufferCallbackErrorTimeout).",
    ],
)
def test_work_that_macos_stopped_is_no_want_of_memory_and_no_bug(make, monkeypatch, message):
    backend = make()

    def fail(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(mx, "async_eval", fail)
    with pytest.raises(DeviceWatchdog, match="while the display needed the GPU"):
        backend.matmul(8)


def test_mlx_is_held_to_the_working_set_that_macos_recommends(monkeypatch):
    limits = []
    monkeypatch.setattr(mx, "set_memory_limit", limits.append)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 12713115648})
    assert module._fence("gpu") == 12713115648
    assert module._fence("cpu") is None
    monkeypatch.setattr(mx, "device_info", dict)  # CUDA has no such figure
    assert module._fence("gpu") is None
    assert limits == [12713115648]


def test_the_result_names_the_backward_pass_of_attention(make):
    details = make().describe()["details"]
    assert details["attention_backward"] in ("fused", "scores written to memory")
    assert "recommended_working_set_bytes" in details


def test_attention_that_conformance_does_not_prove_is_told(make, monkeypatch):
    backend = make()
    monkeypatch.setattr(
        module, "attention_backward", lambda shape, dtype: "fused" if shape[0] > module.BATCH else "plain"
    )
    monkeypatch.setattr(backend, "spec", backend.spec.changed(training=backend.spec.training.changed(batch_size=32)))
    assert backend.describe()["details"]["attention_backward"] == "fused; in conformance plain"


def test_other_errors_stay_what_they_are(make, host_batch):
    backend = make()
    with pytest.raises(ValueError, match="matmul"):
        backend.train_step(backend.to_device(host_batch.images[:, :16], host_batch.targets), LR)


@pytest.mark.skipif(sys.platform != "linux", reason="Metal keeps its kernels itself")
def test_kernels_are_kept_in_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "mlx").mkdir()  # another user's
    keep_kernels_apart("cpu")
    folder = Path(os.environ["TMPDIR"])
    assert folder == tmp_path / f"deit-bench-{os.getuid()}" / f"mlx-{mx.__version__}-cpu"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
