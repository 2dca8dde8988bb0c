"""The training loop with a fake clock and a fake meter: clocks, evaluation, checkpoints, resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_training import Killed, TrainingBackend, World

from shared_spec.data import synthetic
from shared_spec.measure.checkpoint import load_checkpoint
from shared_spec.measure.convergence import Convergence, evaluate
from shared_spec.results import measurements
from shared_spec.results.quantities import Energy
from shared_spec.workload.spec import Spec


@pytest.fixture
def spec(tiny_spec: Spec) -> Spec:
    return tiny_spec.changed(training=tiny_spec.training.changed(epochs=5))  # 16 steps an epoch


def train(
    spec: Spec, world: World, checkpoint: Path, stop: Any = "epochs", every: float = 1e9
) -> measurements.Convergence:
    data = synthetic.dataset(spec)
    backend = TrainingBackend(spec, "cpu", "fp32", "fake")
    backend.world, backend.data = world, data
    return Convergence(
        backend, spec, lambda: data, spec.training.batch_size, 0, stop, checkpoint, every, world, world.clock
    ).run()


def test_clocks_count_everything_and_tell_the_parts(spec: Spec, tmp_path: Path) -> None:
    measured = train(spec, World(lambda step: step / 80), tmp_path / "c.safetensors")
    # 32 test images in batches of 16: two inference batches an evaluation.
    assert measured.seconds == pytest.approx(80 + 5 * 0.2)
    assert measured.evaluation_seconds == pytest.approx(5 * 0.2)
    assert measured.first_step_seconds == pytest.approx(1.0)
    assert measured.images == 320
    assert [row.seconds for row in measured.evaluations] == pytest.approx([16.2 * n for n in range(1, 6)])
    assert [row.top1 for row in measured.evaluations] == pytest.approx([0.1875, 0.40625, 0.59375, 0.8125, 1.0])


def test_time_to_target_is_the_clock_after_the_evaluation_that_saw_it(spec: Spec, tmp_path: Path) -> None:
    measured = train(spec, World(lambda step: step / 80), tmp_path / "c.safetensors")
    assert measured.epochs_to_target == 3  # the first at or above 45 %
    assert measured.seconds_to_target == pytest.approx(3 * 16.2)
    assert len(measured.evaluations) == 5


def test_stop_at_target(spec: Spec, tmp_path: Path) -> None:
    measured = train(spec, World(lambda step: step / 80), tmp_path / "c.safetensors", stop="target")
    assert len(measured.evaluations) == 3
    assert measured.seconds == measured.seconds_to_target


def test_a_missed_target_is_told_as_such(spec: Spec, tmp_path: Path) -> None:
    measured = train(spec, World(lambda step: 0.4), tmp_path / "c.safetensors", stop="target")
    assert measured.epochs_to_target is None
    assert measured.seconds_to_target is None
    assert len(measured.evaluations) == 5


def test_energy_runs_with_the_clock(spec: Spec, tmp_path: Path) -> None:
    measured = train(spec, World(), tmp_path / "c.safetensors")
    assert measured.energy.joules == pytest.approx(10 * measured.seconds)
    assert measured.evaluations[1].joules == pytest.approx(10 * measured.evaluations[1].seconds)


def test_what_is_metered_beside_adds_up_over_the_whole_training(spec: Spec, tmp_path: Path) -> None:
    world = World(lambda step: step / 80)
    world.beside = 0.5
    measured = train(spec, world, tmp_path / "c.safetensors", every=5.0)
    (part,) = measured.energy.beside or ()
    assert measured.energy.joules is not None
    assert (part.what, part.joules) == ("memory", pytest.approx(0.5 * measured.energy.joules))


def test_energy_that_cannot_be_read_is_null_with_its_reason(spec: Spec, tmp_path: Path) -> None:
    world = World()
    world.power = None
    measured = train(spec, world, tmp_path / "c.safetensors")
    assert measured.energy.joules is None
    assert measured.energy.reason == "no permission"


@pytest.mark.parametrize("kill_at", [1, 15, 16, 17, 40, 79])
def test_a_killed_training_goes_on_and_ends_the_same(spec: Spec, tmp_path: Path, kill_at: int) -> None:
    alone = train(spec, World(lambda step: step / 80), tmp_path / "alone.safetensors")
    world, path = World(lambda step: step / 80), tmp_path / "killed.safetensors"
    world.kill_at = kill_at
    with pytest.raises(Killed):
        train(spec, world, path, every=5.0)
    world.now, world.kill_at = world.now + 3600, None  # an hour passes before somebody starts it again
    resumed = train(spec, world, path, every=5.0)
    assert resumed.final_params == alone.final_params
    assert resumed.loss_trace == alone.loss_trace
    assert resumed.seconds == pytest.approx(alone.seconds)  # neither the gap nor undone work is in it
    assert resumed.energy.joules == pytest.approx(alone.energy.joules)
    assert resumed.resumed == (0 if kill_at < 5 else 1)
    assert [row.top1 for row in resumed.evaluations] == [row.top1 for row in alone.evaluations]


def test_a_training_killed_after_its_end_is_not_trained_again(spec: Spec, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    first = train(spec, World(lambda step: step / 80), path)
    again = train(spec, World(lambda step: step / 80), path)
    assert again.evaluations == first.evaluations
    assert again.final_params == first.final_params


def test_a_checkpoint_is_whole_or_absent(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, world = tmp_path / "c.safetensors", World()
    world.kill_at = 20
    with pytest.raises(Killed):
        train(spec, world, path)
    _, before = load_checkpoint(path)
    world.kill_at = None

    def killed_while_replacing(*paths: object) -> None:
        raise Killed

    monkeypatch.setattr("os.replace", killed_while_replacing)
    with pytest.raises(Killed):
        train(spec, world, path)
    monkeypatch.undo()
    assert load_checkpoint(path)[1] == before
    assert list(tmp_path.iterdir()) == [path]


def test_evaluation_counts_each_image_once(spec: Spec) -> None:
    spec = spec.changed(data=spec.data.changed(test_images=27))  # no multiple of the batch
    data = synthetic.dataset(spec)
    backend = TrainingBackend(spec, "cpu", "fp32", "fake")
    backend.world, backend.data = World(lambda step: 9 / 27), data
    top1, loss, of_class = evaluate(backend, data, 16)
    assert top1 == pytest.approx(9 / 27)
    assert of_class.tolist() == [1] * 9 + [0] * 91  # the first nine images are of as many classes
    right, wrong = np.log(99 + np.e) - 1, np.log(99 + np.e)
    assert loss == pytest.approx((9 * right + 18 * wrong) / 27)


def test_a_diverged_training_ends_at_once(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shared_spec.measure.convergence.evaluate", lambda *rest: (0.01, float("nan"), np.zeros(100, int))
    )
    assert len(train(spec, World(), tmp_path / "c.safetensors").evaluations) == 1


class DatedWorld(World):
    """Its meter also tells the time of day."""

    def stop(self) -> Energy:
        return super().stop().changed(windows=((1e9 + self.metered_from, 1e9 + self.now),))


def test_windows_of_the_meter_are_one_for_each_process_and_epochs_have_their_end(spec: Spec, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    world = DatedWorld(lambda step: step / 80)
    world.kill_at = 40
    with pytest.raises(Killed):
        train(spec, world, checkpoint)
    world.now, world.kill_at = world.now + 500, None
    taken_up = world.now
    measured = train(spec, world, checkpoint)
    assert measured.energy.windows is not None
    (first, kept), (resumed, end) = measured.energy.windows
    assert first == 1e9 + 1000
    assert resumed == 1e9 + taken_up
    assert kept == measured.evaluations[1].ended == pytest.approx(first + measured.evaluations[1].seconds)
    assert end == measured.evaluations[-1].ended
    assert kept - first + end - resumed == pytest.approx(measured.seconds)
