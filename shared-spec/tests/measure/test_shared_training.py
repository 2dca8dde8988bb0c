"""Several ranks measure and train as one, with clocks that have nothing in common."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import IDLE, FakeDevice, Meter
from fake_platform.backend import FakeBackend
from fake_training import Killed, TrainingBackend, World
from reference_backend import ReferenceBackend
from thread_ranks import on_ranks

from shared_spec.conformance import probes
from shared_spec.data import synthetic
from shared_spec.data.batches import TrainingBatches
from shared_spec.measure.convergence import Convergence, evaluate
from shared_spec.measure.training import Trainer, measure_training
from shared_spec.ranks import ALONE, Group, RanksApart
from shared_spec.results import measurements
from shared_spec.results.measurements import RanksConvergence, Training
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


@pytest.fixture
def measured_spec(tiny_spec: Spec) -> Spec:
    rules = tiny_spec.measuring.changed(block_steps=2, block_seconds=0.5)
    profile = tiny_spec.profiles.quick.changed(
        window_min_steps=8, window_seconds=2.0, step_samples=3, warmup_max_seconds=20.0
    )
    return tiny_spec.changed(measuring=rules, profiles=tiny_spec.profiles.changed(quick=profile))


def measure(spec: Spec, group: Group, part: bool = False) -> tuple[Training, int]:
    """Training measurements of a rank whose own clock runs faster the higher its number, and its steps."""
    device = FakeDevice({"train_step": 0.1 * (1 + group.rank)})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    backend.group = group
    backend.load_params(params.initial(spec))
    if part and group.rank == 1:
        backend.params["head.bias"] = backend.params["head.bias"] + np.float32(1e-6)
    data = synthetic.dataset(spec)
    batches = TrainingBatches(spec, data.train_images, data.train_labels, 4, 0, group)
    with batches.prefetched() as prefetched:
        trainer = Trainer(backend, spec, iter(prefetched), 4, device.clock)
        return measure_training(trainer, spec.profiles.quick, IDLE, Meter(device.clock)), backend.steps


def test_all_ranks_make_the_steps_that_rank_0s_clock_asks_for(measured_spec: Spec) -> None:
    (alone, steps), *_ = on_ranks(1, lambda group: measure(measured_spec, group))
    assert alone.parallel is None
    found = on_ranks(2, lambda group: measure(measured_spec, group))
    assert [count for _, count in found] == [steps, steps]
    first, second = (measured for measured, _ in found)
    assert first.parallel == second.parallel
    shared = first.parallel
    assert shared is not None
    assert shared.rank_window_blocks == (first.window_blocks, second.window_blocks)
    assert shared.rank_step_seconds == (pytest.approx([0.101] * 3), pytest.approx([0.201] * 3))
    assert (shared.communication_seconds, shared.overlapped_seconds) == (0.002, 0.001)
    assert shared.params_equal is True
    assert first.changed(parallel=None) == alone


def test_training_whose_ranks_part_fails(measured_spec: Spec) -> None:
    for error in on_ranks(2, lambda group: measure(measured_spec, group, part=True)):
        assert isinstance(error, RanksApart)
        assert "parameters after the training steps: rank 1" in str(error)


def converge(spec: Spec, size: int, checkpoint: Path, kill_at: int | None = None, part: int = -1) -> list[Any]:
    data = synthetic.dataset(spec)

    def work(group: Group) -> measurements.Convergence:
        world = World()
        world.now += 1000 * group.rank  # hosts' clocks have nothing in common
        world.kill_at = kill_at
        backend = TrainingBackend(spec, "cpu", "fp32", "fake")
        backend.world, backend.data, backend.group = world, data, group
        path = checkpoint if group.rank == 0 else checkpoint.with_name("another host's")
        training = Convergence(backend, spec, lambda: data, 4, 0, "epochs", path, 5.0, world, world.clock)
        if group.rank == part:
            training.backend.load_params = lambda values: type(backend).load_params(  # type: ignore[method-assign]
                backend, {**values, "head.bias": values["head.bias"] + np.float32(1)}
            )
        return training.run()

    return on_ranks(size, work)


@pytest.fixture
def short_spec(tiny_spec: Spec) -> Spec:
    return tiny_spec.changed(training=tiny_spec.training.changed(epochs=3))  # 16 steps an epoch


def test_a_training_ends_the_same_with_any_number_of_ranks(short_spec: Spec, tmp_path: Path) -> None:
    (alone,) = converge(short_spec, 1, tmp_path / "alone")
    assert alone.parallel is None
    for size in (2, 4):
        first, *others = converge(short_spec, size, tmp_path / f"shared-{size}")
        assert first.parallel == RanksConvergence(world_sizes=(size,))
        assert {other.final_params for other in others} == {first.final_params} == {alone.final_params}
        assert (first.images, first.loss_trace) == (alone.images, alone.loss_trace)
    assert not (tmp_path / "another host's").exists()


def test_a_training_goes_on_with_another_number_of_ranks(short_spec: Spec, tmp_path: Path) -> None:
    (alone,) = converge(short_spec, 1, tmp_path / "alone")
    path = tmp_path / "checkpoint"
    assert all(isinstance(error, Killed) for error in converge(short_spec, 2, path, kill_at=20))
    assert all(isinstance(error, Killed) for error in converge(short_spec, 4, path, kill_at=40))
    (last,) = converge(short_spec, 1, path)
    assert last.parallel == RanksConvergence(world_sizes=(2, 4, 1))
    assert last.resumed == 2
    assert last.final_params == alone.final_params
    assert last.loss_trace == alone.loss_trace


def test_a_training_whose_ranks_part_fails_at_the_end_of_the_epoch(short_spec: Spec, tmp_path: Path) -> None:
    for error in converge(short_spec, 2, tmp_path / "c", part=1):
        assert isinstance(error, RanksApart)
        assert str(error) == "parameters after epoch 1: rank 1 differs from rank 0"


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_shared_evaluation_gives_the_very_same_figures(tiny_spec: Spec, size: int) -> None:
    spec = tiny_spec.changed(data=tiny_spec.data.changed(test_images=27))
    data = synthetic.dataset(spec)

    def work(group: Group) -> tuple[float, float, list[int]]:
        backend = ReferenceBackend(spec, "cpu", "fp32", "numpy")
        backend.group = group
        backend.load_params(probes.large_weights(spec))
        top1, loss, right = evaluate(
            backend, data, 1
        )  # one at a time: NumPy's products depend on the batch in their last bits
        return top1, loss, right.tolist()

    alone = work(ALONE)
    assert alone[1] > 0
    assert on_ranks(size, work) == [alone] * size
