"""The training loop with a fake clock and a fake meter: clocks, evaluation, checkpoints, resuming."""

import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_training import Killed, TrainingBackend, World

from shared_spec import files
from shared_spec.data import synthetic
from shared_spec.measure.checkpoint import Record, Writer, load_checkpoint
from shared_spec.measure.convergence import Convergence, evaluate
from shared_spec.results import measurements
from shared_spec.results.quantities import Energy
from shared_spec.workload import params
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


def evaluated(spec: Spec, often: int, images: int = 64) -> Spec:
    """The spec with so many evaluations an epoch, and training images."""
    return spec.changed(
        training=spec.training.changed(evaluations_per_epoch=often), data=spec.data.changed(train_images=images)
    )


@pytest.mark.parametrize("images", [64, 60])  # 16 steps an epoch, and 15
def test_more_evaluations_change_nothing_of_the_training(spec: Spec, tmp_path: Path, images: int) -> None:
    once, twice, thrice = (
        train(evaluated(spec, often, images), World(lambda step: step / 80), tmp_path / f"{often}.safetensors")
        for often in (1, 2, 3)
    )
    steps = images // 4
    assert once.loss_trace == twice.loss_trace == thrice.loss_trace
    assert once.final_params == twice.final_params == thrice.final_params
    assert [row.step for row in twice.evaluations] == [n * steps // 2 if n % 2 == 0 else n // 2 * steps + steps // 2
                                                       for n in range(1, 11)]  # fmt: skip
    assert twice.evaluation_seconds == pytest.approx(2 * once.evaluation_seconds)
    assert twice.evaluations[-1].top1 == once.evaluations[-1].top1


def test_the_crossing_lies_between_two_evaluations(spec: Spec, tmp_path: Path) -> None:
    measured = train(evaluated(spec, 2), World(lambda step: step / 80), tmp_path / "c.safetensors")
    assert measured.epochs_to_target == 2.5  # after step 40, where half of the images are told rightly
    assert measured.crossing is not None
    below, above = measured.evaluations[3:5]
    assert (below.top1, above.top1) == (13 / 32, 16 / 32)
    part = (0.45 - 13 / 32) / (3 / 32)
    assert measured.crossing.steps == pytest.approx(32 + 8 * part)
    assert below.seconds < measured.crossing.seconds < above.seconds == measured.seconds_to_target
    assert measured.crossing.seconds == pytest.approx(below.seconds + 8.2 * part)


def test_a_training_that_stops_halfway_an_epoch_keeps_its_last_weights(spec: Spec, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    measured = train(evaluated(spec, 2), World(lambda step: step / 80), path, stop="target")
    assert (measured.epochs, measured.images) == (2.5, 160)
    state, record = load_checkpoint(path)
    weights = {name.removeprefix("param/"): value for name, value in state.items() if name.startswith("param/")}
    assert record.step == 40
    assert params.fingerprint(weights) == measured.final_params


def test_first_steps_and_inferences_of_processes_are_told_apart(spec: Spec, tmp_path: Path) -> None:
    world, path = World(lambda step: step / 80), tmp_path / "c.safetensors"
    world.kill_at = 40
    with pytest.raises(Killed):
        train(spec, world, path)
    world.kill_at = None
    measured = train(spec, world, path)
    assert (measured.first_step_seconds, measured.first_inference_seconds) == pytest.approx((2.0, 0.2))
    firsts = [row.first_seconds for row in measured.evaluations]
    assert firsts == pytest.approx([1.1, 1.1, 2.2, 2.2, 2.2])


def test_a_training_tells_when_and_where_each_of_its_processes_ran(spec: Spec, tmp_path: Path) -> None:
    world, path, data = World(), tmp_path / "c.safetensors", synthetic.dataset(spec)

    def on(machine: str) -> Convergence:
        backend = TrainingBackend(spec, "cpu", "fp32", "fake")
        backend.world, backend.data = world, data
        return Convergence(
            backend, spec, lambda: data, 4, 0, "epochs", path, 1e9, world, world.clock, machine=machine * 16
        )

    world.kill_at = 40
    with pytest.raises(Killed):
        on("a").run()
    world.kill_at = None
    last = on("b")
    last.run()
    assert [one.machine[0] for one in last.record.ran] == ["a", "b"]
    assert all(one.began <= one.ended for one in last.record.ran)


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


class SlowDisk:
    """Writing that takes until a test lets it end, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_end, self.begun, self.written = threading.Event(), threading.Event(), files.write_atomic
        monkeypatch.setattr("shared_spec.files.write_atomic", self)

    def __call__(self, path: Path, data: bytes) -> None:
        self.begun.set()
        assert self.may_end.wait(60)
        self.written(path, data)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = SlowDisk(monkeypatch), tmp_path / "c.safetensors"
    weights, record = np.zeros(4, np.float32), Record(step=1)
    with Writer(path, World().clock) as writer:
        writer.write({"w": weights}, record)
        assert disk.begun.wait(60)
        weights += 1.0  # the next step, in place
        record.step = 2
        assert not path.exists()
        disk.may_end.set()
    state, kept = load_checkpoint(path)
    assert (state["w"].tolist(), kept.step) == ([0.0] * 4, 1)


def test_the_time_of_writing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, written = World(), files.write_atomic

    def slow(path: Path, data: bytes) -> None:
        world.now += 0.5
        written(path, data)

    monkeypatch.setattr("shared_spec.files.write_atomic", slow)
    with Writer(tmp_path / "c.safetensors", world.clock) as writer:
        for step in range(3):
            writer.write({}, Record(step=step))
    assert writer.seconds == pytest.approx(3 * 0.5)


def test_a_full_disk_ends_no_training(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shared_spec.files.write_atomic", full)
    assert len(train(spec, World(), tmp_path / "c.safetensors").evaluations) == 5
    assert "no checkpoint could be written (No space left on device)" in capsys.readouterr().err


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
