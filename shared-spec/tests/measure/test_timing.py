"""The measuring loops on a fake backend and a fake clock: every figure is known in advance."""

from itertools import pairwise, repeat

import numpy as np
import pytest
from fake_device import IDLE, FakeDevice, Meter
from fake_platform.backend import FakeBackend

from shared_spec.backend import DeviceWatchdog, OutOfMemory
from shared_spec.data.batches import HostBatch
from shared_spec.measure import inference, training
from shared_spec.measure.matmul_peak import measure_matmul_peak
from shared_spec.measure.timing import Block, Stepper, is_steady, silent
from shared_spec.measure.training import Trainer
from shared_spec.workload.spec import Spec


@pytest.fixture
def spec(tiny_spec: Spec) -> Spec:
    rules = tiny_spec.measuring.changed(block_steps=2, block_seconds=0.5, steady_blocks=3, steady_tolerance=0.05)
    profile = tiny_spec.profiles.quick.changed(window_min_steps=8, window_seconds=2.0, step_samples=3, latency_samples=10,
        latency_seconds=0.1, inference_seconds=1.0, inference_max_batch=8, warmup_max_seconds=20.0, ceiling_seconds=4.0,
    )  # fmt: skip
    return tiny_spec.changed(measuring=rules, profiles=tiny_spec.profiles.changed(quick=profile))


def make_trainer(spec: Spec, device: FakeDevice) -> Trainer:
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    batch = HostBatch(np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 100), np.float32))
    return Trainer(backend, spec, iter(repeat(batch)), 4, device.clock)


def test_training_window_counts_all_device_time_and_nothing_else(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    measured = training.measure_training(make_trainer(spec, device), spec.profiles.quick, IDLE, Meter(device.clock))
    steps = sum(row[0] for row in measured.window_blocks)
    seconds = sum(row[1] for row in measured.window_blocks)
    assert steps >= 8
    assert seconds >= 2.0
    assert seconds / steps == pytest.approx(0.101)  # 0.1 s on the device and 1 ms of dispatch
    assert measured.step_seconds == pytest.approx([0.101] * 3)
    assert measured.steady is True


def test_a_window_has_one_synchronisation_per_block_and_none_per_step(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.01})
    trainer = make_trainer(spec, device)
    stepper = Stepper(trainer.step, trainer.backend.synchronize, spec.measuring, device.clock)
    blocks = stepper.window(8, 2.0, 0.01, silent)
    assert device.calls.count("synchronize") == len(blocks)
    assert all(block.steps == 50 for block in blocks)  # 0.5 s a block at 10 ms a step


def test_a_synchronisation_that_does_not_wait_would_show(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)
    broken = Stepper(trainer.step, lambda handle: None, spec.measuring, device.clock)
    assert broken.block(4).seconds == pytest.approx(0.004)  # dispatch alone: the mistake that this design prevents


def test_energy_is_of_the_window_and_nothing_else(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    measured = training.measure_training(make_trainer(spec, device), spec.profiles.quick, IDLE, Meter(device.clock))
    seconds = sum(row[1] for row in measured.window_blocks)
    assert measured.energy.joules == pytest.approx(10 * seconds)
    assert measured.idle is IDLE


def test_idle_power_is_of_the_time_slept(spec: Spec) -> None:
    device = FakeDevice({})

    def sleep(seconds: float) -> None:
        device.now += seconds

    idle = training.measure_idle(Meter(device.clock), 3.0, sleep)
    assert idle.joules == pytest.approx(30.0)
    assert idle.seconds == 3.0


def test_a_batch_is_tried_for_several_whole_steps(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    measured = training.measure_batch(make_trainer(spec, device), 5)
    assert measured.window_blocks == ((5, pytest.approx(0.505)),)
    assert device.calls.count("train_step") == 7
    assert measured.whole is False


def test_a_batch_that_is_to_count_trains_for_a_window_and_evaluates(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1, "infer": 0.1})
    images = np.zeros((10, 32, 32, 3), np.uint8)
    measured = training.measure_batch(make_trainer(spec, device), 5, 2.0, images)
    assert measured.whole is True
    assert 2.0 <= measured.seconds < 3.0
    assert device.calls[-3:] == ["synchronize", "infer", "to_numpy"]


def test_compile_time_is_apart_from_the_window(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)
    original = trainer.backend.train_step

    def compiling(batch: np.ndarray, lr: float) -> np.ndarray:
        device.now += 30.0 if trainer.step_number == 0 else 0.0
        return original(batch, lr)

    trainer.backend.train_step = compiling  # type: ignore[method-assign]
    measured = training.measure_training(trainer, spec.profiles.quick, IDLE, Meter(trainer.clock))
    assert measured.first_step_seconds == pytest.approx(30.101)
    assert sum(row[1] for row in measured.window_blocks) < 5


def test_warm_up_ends_when_steady_not_before(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)
    original = trainer.backend.train_step

    def settling(batch: np.ndarray, lr: float) -> np.ndarray:
        device.queued += 0.1 / trainer.step_number if trainer.step_number else 0.0
        return original(batch, lr)

    trainer.backend.train_step = settling  # type: ignore[method-assign]
    stepper = Stepper(trainer.step, trainer.backend.synchronize, spec.measuring, device.clock)
    blocks, steady = stepper.warm_up(20.0)
    assert steady
    assert len(blocks) > spec.measuring.steady_blocks
    assert not is_steady(blocks[:-1], spec.measuring)


def test_warm_up_that_never_settles_gives_up_and_says_so(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)
    original = trainer.backend.train_step

    def restless(batch: np.ndarray, lr: float) -> np.ndarray:
        device.queued += 0.1 * (len(device.calls) // 12 % 2)
        return original(batch, lr)

    trainer.backend.train_step = restless  # type: ignore[method-assign]
    stepper = Stepper(trainer.step, trainer.backend.synchronize, spec.measuring, device.clock)
    _, steady = stepper.warm_up(20.0)
    assert not steady
    assert 20 <= device.now < 25


@pytest.mark.parametrize(
    ("times", "steady"),
    [([1, 1], False), ([1, 1, 1], True), ([9, 1, 1.04, 1], True), ([1, 1, 1.06], False), ([1, 1.03, 0.97], True)],
)
def test_is_steady(spec: Spec, times: list[float], steady: bool) -> None:
    assert is_steady([Block(2, 2 * t) for t in times], spec.measuring) is steady


def test_peak_memory_is_reset_between_warm_up_and_window(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    training.measure_training(make_trainer(spec, device), spec.profiles.quick, IDLE, Meter(device.clock))
    position = device.calls.index("reset_peak_memory")
    assert device.calls[:position].count("train_step") >= 1 + 3 * 2
    assert device.calls[position:].count("train_step") >= 8


def test_waiting_for_the_host_is_measured(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)
    batch = next(trainer.batches)

    def slow_host():  # type: ignore[no-untyped-def]
        while True:
            device.now += 0.02
            yield batch

    trainer.batches = slow_host()
    measured = training.measure_training(trainer, spec.profiles.quick, IDLE, Meter(trainer.clock))
    steps = sum(row[0] for row in measured.window_blocks)
    assert measured.window_host_wait_seconds == pytest.approx(0.02 * steps)


def test_the_host_time_of_a_window_is_told_by_what_it_went_on(spec: Spec) -> None:
    device = FakeDevice({"train_step": 0.1})
    trainer = make_trainer(spec, device)

    def slow_transfer(images: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
        device.now += 0.003
        return images

    trainer.backend.to_device = slow_transfer  # type: ignore[method-assign]
    measured = training.measure_training(trainer, spec.profiles.quick, IDLE, Meter(device.clock))
    steps = sum(row[0] for row in measured.window_blocks)
    host = measured.window_host_seconds
    assert host is not None
    assert host.wait == measured.window_host_wait_seconds == pytest.approx(0.0)
    assert host.transfer == pytest.approx(0.003 * steps)
    assert host.dispatch == pytest.approx(0.001 * steps)
    assert host.drain == pytest.approx(0.1 * steps)
    assert sum(host.to_dict().values()) == pytest.approx(measured.seconds)


class Pipelined:
    """A device that computes while the host goes on: what the host does meanwhile costs nothing."""

    def __init__(self, step: float, load: float) -> None:
        self.host, self.device, self.step, self.load = 0.0, 0.0, step, load

    def clock(self) -> float:
        return self.host

    def batches(self):  # type: ignore[no-untyped-def]
        batch = HostBatch(np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 100), np.float32))
        while True:
            self.host += self.load
            yield batch

    def on_work(self, kind: str) -> None:
        if kind == "train_step":
            self.device = max(self.device, self.host) + self.step
        elif kind == "synchronize":
            self.host = max(self.host, self.device)


@pytest.mark.parametrize(("load", "share"), [(0.005, 0.0), (0.009, 0.0), (0.02, 0.5)])
def test_feeding_shows_what_the_device_waits_for_and_not_what_the_host_waits_for(
    spec: Spec, load: float, share: float
) -> None:
    """A host that needs 5 or 9 ms for a batch keeps a device busy that needs 10 ms for a step; 20 ms starve it."""
    world = Pipelined(0.01, load)
    backend = FakeBackend(spec, "cpu", "fp32", "fake", world.on_work)
    trainer = Trainer(backend, spec, world.batches(), 4, world.clock)
    rows = training.measure_feeding(trainer, 4.0, 0.01)
    assert len(rows) >= 3
    assert {row[0] for row in rows} == {50}
    fed, unfed = (sum(row[i] for row in rows) for i in (1, 2))
    # The first batch of a block has nothing to hide behind: one load in a block of 50 steps.
    assert 1 - unfed / fed == pytest.approx(share, abs=load / 0.5 + 1e-3)
    assert trainer.host_wait > 0.004 * 50 * len(rows)  # the host waited all the while


def test_feeding_is_compared_once_at_least_and_steps_uncounted(spec: Spec) -> None:
    device = FakeDevice({"train_step": 2.0})
    trainer = make_trainer(spec, device)
    rows = training.measure_feeding(trainer, 0.1, 2.0)
    assert [row[0] for row in rows] == [1]
    assert trainer.step_number == 1
    assert len(trainer.trace) == 1


def test_loss_trace_has_the_first_losses_in_order_and_no_more(spec: Spec) -> None:
    spec = spec.changed(measuring=spec.measuring.changed(loss_trace_steps=5))
    device = FakeDevice({"train_step": 0.1})
    measured = training.measure_training(make_trainer(spec, device), spec.profiles.quick, IDLE, Meter(device.clock))
    assert measured.loss_trace == pytest.approx([4.6 / n for n in range(1, 6)])


def test_learning_rate_follows_the_schedule(spec: Spec) -> None:
    trainer = make_trainer(spec, FakeDevice({"train_step": 0.1}))
    seen: list[float] = []
    original = trainer.backend.train_step

    def recording(batch: np.ndarray, lr: float) -> np.ndarray:
        seen.append(lr)
        return original(batch, lr)

    trainer.backend.train_step = recording  # type: ignore[method-assign]
    for _ in range(10):
        trainer.step()
    assert seen == [spec.learning_rate(step, 4) for step in range(10)]


def test_latency_keeps_every_sample_and_separates_transfer(spec: Spec) -> None:
    device = FakeDevice({"infer": 0.005}, dispatch=0.001)
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    measured = inference.measure_latency(backend, images, spec, spec.profiles.quick, device.clock)
    assert len(measured.host_to_host_seconds) >= 10
    assert sum(measured.host_to_host_seconds) >= 0.1
    assert measured.host_to_host_seconds == pytest.approx([0.006] * len(measured.host_to_host_seconds))
    assert measured.device_only_seconds == pytest.approx([0.006] * len(measured.device_only_seconds))


def test_device_only_goes_round_images_that_are_there_already(spec: Spec) -> None:
    """No transfer between two timed calls but every sixteenth, and no image twice."""
    device = FakeDevice({"infer": 0.005}, dispatch=0.001)
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    asked: list[bytes] = []
    infer = backend.infer
    backend.infer = lambda batch: asked.append(np.asarray(batch).tobytes()) or infer(batch)  # type: ignore[method-assign,func-returns-value]
    images = np.arange(3, dtype=np.uint8).repeat(32 * 32 * 3).reshape(3, 32, 32, 3)
    measured = inference.measure_latency(backend, images, spec, spec.profiles.quick, device.clock)
    count = len(measured.device_only_seconds)
    assert count > inference.RESIDENT_IMAGES
    assert len(set(asked[-count:])) == count
    waits = device.calls[-2 * count :].count("synchronize")
    assert waits <= count + count // inference.RESIDENT_IMAGES + 1


def test_inference_goes_round_several_batches_and_some_answers_are_looked_at(spec: Spec) -> None:
    device = FakeDevice({"infer": 0.02})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    images = np.arange(8, dtype=np.uint8).repeat(32 * 32 * 3).reshape(8, 32, 32, 3)
    asked: list[int] = []
    infer = backend.infer
    backend.infer = lambda batch: asked.append(int(np.asarray(batch).flat[0])) or infer(batch)  # type: ignore[method-assign,func-returns-value]
    seen: list[inference.TimedCalls] = []
    profile = spec.profiles.quick.changed(inference_max_batch=1)
    inference.measure_inference(backend, images, spec, profile, device.clock, observer=seen.append)
    assert set(asked) == set(range(inference.RESIDENT))
    assert all(a != b for a, b in pairwise(asked))
    assert len(seen) == inference.LOOKED_AT
    assert len({int(one.images.flat[0]) for one in seen}) == inference.LOOKED_AT


def test_latency_samples_are_written_in_nanoseconds(spec: Spec) -> None:
    device = FakeDevice({"infer": 0.001234567891}, dispatch=0.0)
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    measured = inference.measure_latency(backend, images, spec, spec.profiles.quick, device.clock)
    assert set(measured.to_dict()["host_to_host_seconds"]) == {0.001234568}


def test_inference_doubles_up_to_the_bound(spec: Spec) -> None:
    device = FakeDevice({"infer": 0.02})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    measured = inference.measure_inference(
        backend, np.zeros((3, 32, 32, 3), np.uint8), spec, spec.profiles.quick, device.clock
    )
    assert [size.batch_size for size in measured.sizes] == [1, 2, 4, 8]
    assert measured.stopped is None


def test_inference_stops_at_out_of_memory_and_keeps_what_it_has(spec: Spec) -> None:
    device = FakeDevice({"infer": 0.02})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    backend.largest_batch = 3
    measured = inference.measure_inference(
        backend, np.zeros((3, 32, 32, 3), np.uint8), spec, spec.profiles.quick, device.clock
    )
    assert [size.batch_size for size in measured.sizes] == [1, 2]
    assert measured.stopped == "batch 4: out of memory (too large)"


def test_matmul_peak_grows_the_matrix_until_its_time_is_spent(spec: Spec) -> None:
    device = FakeDevice({"matmul": 0.05})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    measured = measure_matmul_peak(backend, spec, spec.profiles.quick, device.clock)
    sizes = [size.n for size in measured.sizes]
    assert sizes[:3] == [512, 1024, 2048]
    for size in measured.sizes:
        for steps, seconds in size.blocks:
            assert seconds / steps == pytest.approx(0.051)


def test_matmul_peak_does_not_count_the_compiling_of_a_product(spec: Spec) -> None:
    device = FakeDevice({"matmul": 0.001})
    compiled: set[str] = set()

    def on_work(kind: str) -> None:
        device.on_work(kind)
        if kind.startswith("matmul") and kind not in compiled:
            compiled.add(kind)
            device.now += 30.0

    backend = FakeBackend(spec, "cpu", "fp32", "fake", on_work)
    measured = measure_matmul_peak(backend, spec, spec.profiles.quick, device.clock)
    assert [size.n for size in measured.sizes] == [512, 1024, 2048, 4096, 8192, 16384]


def product_seconds(rate: float) -> dict[str, float]:
    """Seconds of a product by its size on a device of that many FLOP/s."""
    return {f"matmul {1 << i}": 2 * (1 << i) ** 3 / rate for i in range(9, 15)}


@pytest.mark.parametrize(("rate", "largest"), [(4e12, 8192), (1e14, 16384), (1e11, 2048)])
def test_matmul_peak_starts_no_product_that_would_take_half_a_second(spec: Spec, rate: float, largest: int) -> None:
    """An M4 needs 0.27 s for 8192 and 2.2 s for 16384, which macOS stops while a display is on."""
    seconds, device = product_seconds(rate), FakeDevice({})

    def on_work(kind: str) -> None:
        device.step_times = {kind.split(maxsplit=1)[0]: seconds.get(kind, 0.0)}
        device.on_work(kind)

    backend = FakeBackend(spec, "cpu", "fp32", "fake", on_work)
    generous = spec.profiles.quick.changed(ceiling_seconds=1000.0)
    measured = measure_matmul_peak(backend, spec, generous, device.clock)
    assert measured.sizes[-1].n == largest


@pytest.mark.parametrize("error", [OutOfMemory("full"), DeviceWatchdog("stopped")])
def test_matmul_peak_keeps_the_sizes_before_the_one_that_was_stopped(spec: Spec, error: Exception) -> None:
    device = FakeDevice({"matmul": 0.001})

    def on_work(kind: str) -> None:
        if kind == last:
            raise error
        device.on_work(kind)

    backend, last = FakeBackend(spec, "cpu", "fp32", "fake", on_work), "matmul 2048"
    measured = measure_matmul_peak(backend, spec, spec.profiles.quick, device.clock)
    assert [size.n for size in measured.sizes] == [512, 1024]
    last = "matmul 512"
    with pytest.raises(type(error)):
        measure_matmul_peak(backend, spec, spec.profiles.quick, device.clock)
