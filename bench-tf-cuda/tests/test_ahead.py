"""Steps handed to threads: the same steps in the same order, no further ahead than said, nothing lost when one fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
import tensorflow as tf

from bench_tf_cuda import ahead
from bench_tf_cuda.backend import TfBackend
from shared_spec.backend import OutOfMemory
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

HostBatch = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def threaded(backend: TfBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[TfBackend]:
    """The backend on the CPU with the threads that it has on a GPU."""
    monkeypatch.setattr(backend, "_ahead", ahead.Ahead())
    yield backend
    with suppress(OutOfMemory):
        backend.synchronize()  # a step under way would change what the next test finds


def test_copies_wait_beside_one_another_and_steps_keep_their_order() -> None:
    queue, arrived = ahead.Ahead(), [threading.Event() for _ in range(ahead.STEPS)]

    def put(number: int) -> int:
        if number + 1 < ahead.STEPS:
            arrived[number + 1].wait()  # a later one arrives first
        arrived[number].set()
        return number

    ran: list[int] = []
    handles = [queue.launch(ran.append, queue.copy(put, i)) for i in range(ahead.STEPS)]
    queue.settle()
    assert ran == list(range(ahead.STEPS))
    assert all(handle.done() for handle in handles)


def test_when_a_step_fails_none_is_under_way_any_more() -> None:
    queue, ran = ahead.Ahead(), []

    def step(number: int) -> None:
        if number == 0:
            raise ValueError("the first")
        threading.Event().wait(0.05)
        ran.append(number)

    for i in range(ahead.STEPS):
        queue.launch(step, queue.copy(int, i))
    with pytest.raises(ValueError, match="the first"):
        queue.settle()
    assert ran == list(range(1, ahead.STEPS))
    queue.settle()


def test_no_more_steps_ahead_than_said() -> None:
    queue, release, given = ahead.Ahead(), threading.Event(), []

    def give() -> None:
        for i in range(ahead.STEPS + 1):
            queue.launch(lambda _: release.wait(), queue.copy(int, i))
            given.append(i)

    thread = threading.Thread(target=give)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert len(given) == ahead.STEPS
    release.set()
    thread.join()
    queue.settle()


def test_training_is_the_same_bit_for_bit(
    backend: TfBackend, spec: Spec, host_batch: HostBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        backend.load_params(params.initial(spec))
        images, targets = host_batch
        handles = []
        for step in range(12):
            batch = backend.to_device(np.roll(images, step, 0), np.roll(targets, 2 * step, 0))
            handles.append(backend.train_step(batch, spec.learning_rate(step, 4)))
        logits = backend.to_numpy(backend.infer(batch))
        return np.stack([backend.to_numpy(handle) for handle in handles]), backend.export_state(), logits

    expected = train()
    monkeypatch.setattr(backend, "_ahead", ahead.Ahead())
    found = train()
    assert found[1]["step"] == 12
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[2], expected[2])
    for key, value in expected[1].items():
        np.testing.assert_array_equal(found[1][key], value, err_msg=key)


def test_whatever_follows_sees_the_steps_before_it(threaded: TfBackend, host_batch: HostBatch) -> None:
    batch = threaded.to_device(*host_batch)
    for follows in (threaded.synchronize, threaded.export_params, lambda: threaded.gradients(batch)):
        before = threaded.export_state()["step"]
        handle = threaded.train_step(batch, 1e-3)
        follows()
        assert handle.done()
        assert threaded.export_state()["step"] == before + 1


def test_exhausted_memory_arrives_where_it_is_waited_for(
    threaded: TfBackend, host_batch: HostBatch, exhausted: Callable[..., tf.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(threaded._programs, (threaded._compiled_step, 4), exhausted)
    batch = threaded.to_device(*host_batch)
    handle = threaded.train_step(batch, 1e-3)
    with pytest.raises(OutOfMemory, match="9 bytes"):
        threaded.synchronize(handle)
    with pytest.raises(OutOfMemory, match="9 bytes"):
        threaded.to_numpy(handle)
    for _ in range(ahead.STEPS):
        threaded.train_step(batch, 1e-3)
    with pytest.raises(OutOfMemory, match="9 bytes"):
        threaded.train_step(batch, 1e-3)
