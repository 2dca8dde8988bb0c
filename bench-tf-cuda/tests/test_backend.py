"""What the Backend protocol promises, on the CPU; that the model is the specified one is the conformance's business."""

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda.backend import TfBackend
from shared_spec.backend import OutOfMemory
from shared_spec.errors import UserError
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

HostBatch = tuple[np.ndarray, np.ndarray]


def program_text(function: Any, *args: tf.Tensor) -> list[str]:
    """The matrix products of a compiled function, as XLA is given them."""
    hlo = function.experimental_get_compiler_ir(*args)(stage="hlo")
    return [line for line in hlo.splitlines() if " dot(" in line]


def test_export_gives_back_what_was_loaded(backend: TfBackend, spec: Spec) -> None:
    rng = np.random.default_rng(1)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in params.shapes(spec).items()}
    backend.load_params(values)
    exported = backend.export_params()
    params.check(spec, exported, "export")
    assert list(exported) == list(values)
    for name, value in values.items():
        np.testing.assert_array_equal(exported[name], value, err_msg=name)


def test_load_params_names_a_wrong_parameter(backend: TfBackend, spec: Spec) -> None:
    values = params.initial(spec) | {"head.weight": np.zeros((100, 33), np.float32)}
    with pytest.raises(UserError, match=r"head\.weight has shape"):
        backend.load_params(values)


def test_state_continues_bit_for_bit(backend: TfBackend, spec: Spec, host_batch: HostBatch) -> None:
    batch = backend.to_device(*host_batch)
    backend.train_step(batch, 1e-3)
    state = backend.export_state()
    assert state["step"] == 1
    assert state["step"].dtype == np.int64
    handles = [backend.train_step(batch, 1e-3) for _ in range(2)]
    expected = backend.export_state()

    backend.load_params(params.initial(spec))  # nothing is left of the first training
    backend.load_state(state)
    resumed = [backend.train_step(backend.to_device(*host_batch), 1e-3) for _ in range(2)]
    np.testing.assert_array_equal(np.stack(resumed), np.stack(handles))
    continued = backend.export_state()
    assert continued.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(continued[key], value, err_msg=key)


def test_load_params_starts_the_optimiser_afresh(backend: TfBackend, spec: Spec, host_batch: HostBatch) -> None:
    batch = backend.to_device(*host_batch)
    first = backend.to_numpy(backend.train_step(batch, 1e-2))
    backend.load_params(params.initial(spec))
    state = backend.export_state()
    assert state["step"] == 0
    assert not any(value.any() for key, value in state.items() if key.startswith(("m/", "v/")))
    np.testing.assert_array_equal(backend.to_numpy(backend.train_step(batch, 1e-2)), first)


def test_one_trace_for_each_batch_size_whatever_the_learning_rate(
    backend: TfBackend, spec: Spec, host_batch: HostBatch
) -> None:
    images, targets = host_batch
    counts = []
    for size in (4, 2):
        for step in range(3):
            backend.train_step(backend.to_device(images[:size], targets[:size]), spec.learning_rate(step, size))
            counts.append(backend._compiled_step.experimental_get_tracing_count())
    assert counts[0] == counts[1] == counts[2]
    assert counts[3] == counts[4] == counts[5] == counts[0] + 1
    assert backend.export_state()["step"] == 6


def test_every_product_of_a_step_adds_up_its_terms(backend: TfBackend, host_batch: HostBatch) -> None:
    """A gradient may not come as an outer product for each token, to be added up afterwards: that is no library call."""
    batch = backend.to_device(*host_batch)
    products = program_text(backend._compiled_step, *batch, tf.constant(1e-4))
    assert len(products) > 30
    assert not [line for line in products if "contracting_dims={}" in line]


def test_step_is_clipped_adamw(backend: TfBackend, spec: Spec, host_batch: HostBatch) -> None:
    """Two steps against the update computed in NumPy float64 from the backend's own gradients."""
    o, batch = spec.optimizer, backend.to_device(*host_batch)
    values = {name: value.astype(np.float64) for name, value in params.initial(spec).items()}
    m = {name: np.zeros_like(value) for name, value in values.items()}
    v = {name: np.zeros_like(value) for name, value in values.items()}
    for step, lr in ((1, 1e-3), (2, 5e-4)):
        gradients = backend.gradients(batch)
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values()))
        assert norm > o.clip_norm
        assert backend.to_numpy(backend.train_step(batch, lr))[1] == pytest.approx(norm, rel=1e-5)
        exported = backend.export_params()
        for name, gradient in gradients.items():
            g = gradient * min(1.0, o.clip_norm / (norm + 1e-6))
            m[name] = o.beta1 * m[name] + (1 - o.beta1) * g
            v[name] = o.beta2 * v[name] + (1 - o.beta2) * g**2
            m_hat, v_hat = m[name] / (1 - o.beta1**step), v[name] / (1 - o.beta2**step)
            decay = o.weight_decay * values[name] if params.has_decay(name, gradient.shape) else 0.0
            values[name] = values[name] - lr * (m_hat / (np.sqrt(v_hat) + o.eps) + decay)
            # Float32 rounds parameters near 1 to 6e-8; without bias correction the step differs by 3e-3.
            np.testing.assert_allclose(exported[name], values[name], rtol=2e-7, atol=1e-6, err_msg=name)


def test_gradients_leave_the_state_alone(backend: TfBackend, spec: Spec, host_batch: HostBatch) -> None:
    before = backend.export_state()
    gradients = backend.gradients(backend.to_device(*host_batch))
    params.check(spec, gradients, "gradients")
    assert all(gradient.any() for gradient in gradients.values())
    for key, value in backend.export_state().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_training_learns_its_batch(backend: TfBackend, host_batch: HostBatch) -> None:
    batch = backend.to_device(*host_batch)
    losses = [backend.to_numpy(backend.train_step(batch, 3e-3))[0] for _ in range(20)]
    assert 4.4 < losses[0] < 4.8  # ln 100 and a little
    assert losses[-1] < 0.5 * losses[0]


def test_logits_are_float32_and_do_not_depend_on_the_batch(backend: TfBackend, host_batch: HostBatch) -> None:
    images, targets = host_batch
    logits = backend.to_numpy(backend.infer(backend.to_device(images, targets)))
    single = backend.to_numpy(backend.infer(backend.to_device(images[2:3], None)))
    assert logits.shape == (4, 100)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(single[0], logits[2], atol=1e-6 if backend.precision == "fp32" else 1e-2)
    assert np.ptp(logits, axis=0).max() > 0.05


@pytest.mark.parametrize("change", ["train_step", "load_params", "load_state"])
def test_inference_sees_whatever_changed_the_parameters(
    change: str, backend: TfBackend, spec: Spec, host_batch: HostBatch
) -> None:
    batch = backend.to_device(*host_batch)
    before = backend.to_numpy(backend.infer(batch))
    if change == "train_step":
        backend.train_step(batch, 1e-2)
    else:
        other = {name: 2 * value for name, value in params.initial(spec).items()}
        state = backend.export_state() | {f"param/{name}": value for name, value in other.items()}
        backend.load_params(other) if change == "load_params" else backend.load_state(state)
    after = backend.to_numpy(backend.infer(batch))
    assert np.abs(after - before).max() > 1e-2
    fresh = TfBackend(spec, "cpu", backend.precision, backend.engine)
    fresh.load_params(backend.export_params())
    np.testing.assert_array_equal(fresh.to_numpy(fresh.infer(fresh.to_device(*host_batch))), after)


def test_parameters_are_cast_once_for_all_inference(
    backend: TfBackend, host_batch: HostBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    casts = []
    cast = backend._cast_weights
    monkeypatch.setattr(backend, "_cast_weights", lambda: casts.append(1) or cast())
    batch = backend.to_device(*host_batch)
    for _ in range(3):
        backend.infer(batch)
    assert len(casts) == 1
    backend.train_step(batch, 1e-2)
    assert backend._inference_weights is None, "training keeps no second copy of the parameters"
    backend.infer(batch)
    assert len(casts) == 2


def test_inference_is_given_each_matrix_by_itself_in_its_own_type(backend: TfBackend, host_batch: HostBatch) -> None:
    images = backend.to_device(*host_batch)[0]
    weights = backend._cast_weights()
    assert sum(weight.shape.num_elements() for weight in weights) == sum(backend._layout.sizes)
    for (name, shape), weight in zip(backend._matrices.items(), weights, strict=False):
        assert tuple(weight.shape) == shape, name
        assert weight.dtype == backend._dtype
    hlo = backend._compiled_forward.experimental_get_compiler_ir(images, *weights)(stage="hlo")
    longest = max(weight.shape.num_elements() for weight in weights[:-1])
    vectors = [int(n) for n in re.findall(r"[a-z0-9]+\[(\d+)\]", hlo)]
    assert max(vectors) < longest, "a matrix comes out of a vector"


def test_preprocess_is_float32_at_either_precision(backend: TfBackend, spec: Spec, host_batch: HostBatch) -> None:
    batch = backend.to_device(np.full_like(host_batch[0], 255), None)
    found = backend.to_numpy(backend.preprocess(batch))
    expected = (1 - np.array(spec.data.mean)) / np.array(spec.data.std)
    assert found.shape == (4, 64, 64, 3)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-6)


def test_small_updates_are_kept_at_either_precision(backend: TfBackend, host_batch: HostBatch) -> None:
    backend.train_step(backend.to_device(*host_batch), 1e-6)  # lost in a bfloat16 near 1, whose next value is 1.0078
    change = backend.export_params()["norm.weight"] - 1
    assert np.abs(change).max() == pytest.approx(1e-6, rel=0.1)


def test_products_have_the_precision_asked_for(backend: TfBackend, host_batch: HostBatch) -> None:
    lines = program_text(backend._compiled_step, *backend.to_device(*host_batch), tf.constant(1e-3))
    in_float32 = [line for line in lines if "= f32[" in line]
    assert all("operand_precision={highest,highest}" in line for line in in_float32)
    if backend.precision == "fp32":
        assert in_float32 == lines
    else:
        assert len(in_float32) == 2  # the upscaling's two, and nothing else
        assert not any("highest" in line for line in lines if line not in in_float32)


def test_synchronize_waits_for_handles_and_for_all_before_them(backend: TfBackend) -> None:
    """In TensorFlow's asynchronous mode, where the CPU returns before it is done, as a GPU does."""
    tf.config.experimental.set_synchronous_execution(False)
    try:
        for with_handle in (True, False):
            release, done = threading.Event(), threading.Event()

            def work(release: threading.Event = release, done: threading.Event = done) -> tf.Tensor:
                release.wait()
                done.set()
                return tf.zeros(2)

            handle = tf.py_function(work, [], tf.float32)
            assert not done.is_set()
            threading.Timer(0.05, release.set).start()
            backend.synchronize(*[handle] * with_handle)
            assert done.is_set()
    finally:
        tf.config.experimental.set_synchronous_execution(True)


def test_matmul_is_a_product_at_this_precision(backend: TfBackend) -> None:
    handle = backend.matmul(300)
    backend.synchronize(handle)
    assert handle.shape == (300, 300)
    assert handle.dtype == (tf.float32 if backend.precision == "fp32" else tf.bfloat16)
    assert backend.to_numpy(handle).std() == pytest.approx(300**0.5, rel=0.02)
    np.testing.assert_array_equal(backend.to_numpy(backend.matmul(300)), backend.to_numpy(handle))


def test_exhausted_memory_is_told_apart(
    backend: TfBackend, exhausted: Callable[..., tf.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backend._programs, (backend._compiled_matmul, 8), exhausted)
    with pytest.raises(OutOfMemory, match=r"^Out of memory while trying to allocate 9 bytes\.$"):
        backend.matmul(8)


def test_describe_reads_precision_back(backend: TfBackend) -> None:
    found = backend.describe()
    assert found["device"]["kind"] == "cpu"
    assert found["details"]["tf32"] is False
    assert found["precision"]["effective"].startswith(backend.precision)
    assert backend.memory() == {}
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        assert backend.describe()["details"]["tf32"] is True
        assert (backend.describe()["precision"]["effective"] == "tf32") is (backend.precision == "fp32")
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def test_describe_leaves_folders_out_of_the_flags(backend: TfBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_cuda_data_dir=/some/where --xla_gpu_autotune_level=0")
    assert backend.describe()["details"]["xla_flags"] == "--xla_gpu_autotune_level=0"


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow has a GPU here")
def test_cuda_without_a_gpu_says_what_is_missing(spec: Spec) -> None:
    with pytest.raises(
        UserError, match=r"--device cuda: .* no usable GPU \(.*(libcuda|cuInit|cuda drivers).*--device cpu"
    ):
        TfBackend(spec, "cuda", "fp32", "xla")


def test_other_devices_are_refused(spec: Spec) -> None:
    with pytest.raises(UserError, match="--device gpu"):
        TfBackend(spec, "gpu", "fp32", "xla")
