"""NVIDIA's meters: the board's counter, its power integrated, and which board it is."""

from collections.abc import Callable

import pytest
from fake_meters import World, assert_null, reading_of
from fake_nvml import ENERGY, LIMIT, POWER, Board, Nvml

from shared_spec.machine.energy import nvml
from shared_spec.machine.energy.meter import Meter, NoMeter


def gpu_meter(world: World, *boards: Board, **environ: str) -> Meter:
    return nvml.open_meter(world.clock, Nvml(*boards), environ, world.sampler())


def test_nvml_counter_difference(world: World, board: Board) -> None:
    reading = reading_of(gpu_meter(world, board), world, 10)
    assert reading.joules == pytest.approx(5000, rel=0.01)
    assert (reading.source, reading.samples) == ("nvml-counter", 1)
    assert "gpu 0" in reading.scope


def test_nvml_windows_in_a_row_lose_nothing(world: World, board: Board) -> None:
    """Windows shorter than a step of the counter read 0 or a whole step, and still add up."""
    meter = gpu_meter(world, board)
    parts = [reading_of(meter, world, 0.03).joules for _ in range(200)]
    assert 0.0 in parts
    assert sum(part or 0.0 for part in parts) == pytest.approx(500 * 6.0, rel=0.02)


def test_nvml_counter_that_stands_still_is_null(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    board.watts = 0.0
    assert_null(reading_of(meter, world, 10), "did not move", "gpu 0")


def test_nvml_reading_above_the_board_limit_is_null(world: World, board: Board) -> None:
    board.watts = 900.0
    assert_null(reading_of(gpu_meter(world, board), world, 10), "700 W")


def test_nvml_reading_at_the_board_limit_is_believed(world: World, board: Board) -> None:
    board.watts = 750.0
    assert reading_of(gpu_meter(world, board), world, 60).joules == pytest.approx(45_000, rel=0.01)


def test_nvml_without_a_known_limit_is_believed(world: World, board: Board) -> None:
    board.watts, board.unsupported = 900.0, {LIMIT}
    assert reading_of(gpu_meter(world, board), world, 10).joules == pytest.approx(9000, rel=0.01)


def test_nvml_counter_that_goes_backwards_is_null(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    meter.start()
    board.count = board.pending = 0.0
    world.run(10)
    assert_null(meter.stop(), "backwards")


def test_nvml_gpu_lost_within_a_window_is_null_and_the_next_window_counts(world: World, board: Board) -> None:
    meter = gpu_meter(world, board)
    meter.start()
    world.run(5)
    board.unsupported = {ENERGY}
    assert_null(meter.stop(), "no longer")
    meter.start()
    board.unsupported = set()
    assert_null(meter.stop(), "no longer")
    assert reading_of(meter, world, 10).joules is not None


def without_counter(board: Board) -> None:
    board.unsupported.add(ENERGY)


def counter_of_a_virtual_gpu(board: Board) -> None:
    board.count, board.pending = 0.0, -1e12


@pytest.mark.parametrize("spoil", [without_counter, counter_of_a_virtual_gpu])
def test_nvml_integrates_where_there_is_no_counter(spoil: Callable[[Board], None], world: World, board: Board) -> None:
    spoil(board)
    meter = gpu_meter(world, board)
    meter.start()
    for watts in (100.0, 300.0):
        board.watts = watts
        world.run(5)
    reading = meter.stop()
    assert reading.joules == pytest.approx(2000, rel=0.01)
    assert reading.source == "nvml-integrated"
    assert reading.samples > 10 * 20


def test_nvml_integration_follows_a_ramp(world: World, board: Board) -> None:
    """100 W to 400 W in 10 s, evenly: 2500 J."""
    board.watts = 100.0
    without_counter(board)
    meter = gpu_meter(world, board)
    world.then.insert(0, lambda: setattr(board, "watts", board.watts + 0.3))
    assert reading_of(meter, world, 10).joules == pytest.approx(2500, rel=1e-3)


def integrating(world: World, board: Board) -> Meter:
    without_counter(board)
    return gpu_meter(world, board)


@pytest.mark.parametrize("spoil", [without_counter, lambda board: None], ids=["power", "counter"])
def test_nvml_start_again_forgets_the_first_window(spoil: Callable[[Board], None], world: World, board: Board) -> None:
    spoil(board)
    meter = gpu_meter(world, board)
    meter.start()
    world.run(5)
    assert reading_of(meter, world, 4).joules == pytest.approx(2000, rel=0.01)


def test_nvml_integration_needs_sixty_samples(world: World, board: Board) -> None:
    meter = integrating(world, board)
    assert_null(reading_of(meter, world, 1), "too few", "60")
    assert reading_of(meter, world, 3).joules == pytest.approx(1500, rel=0.01)


def test_nvml_integration_rejects_a_gap(world: World, board: Board) -> None:
    meter = integrating(world, board)
    meter.start()
    world.run(5)
    world.now += 2.5  # the thread did not get to run
    world.run(5)
    assert_null(meter.stop(), "gap of 2.5")


def test_nvml_integration_rejects_power_above_the_limit(world: World, board: Board) -> None:
    board.watts = 900.0
    assert_null(reading_of(integrating(world, board), world, 10), "900 W", "700 W")


def test_nvml_integration_rejects_no_power(world: World, board: Board) -> None:
    meter = integrating(world, board)
    board.watts = 0.0
    assert_null(reading_of(meter, world, 10), "0 W")


def test_nvml_integration_rejects_an_unanswered_query(world: World, board: Board) -> None:
    """Also at the end, where no gap between samples would show it."""
    meter = integrating(world, board)
    meter.start()
    world.run(5)
    board.unsupported.add(POWER)
    assert_null(meter.stop(), "no longer")
    board.unsupported.remove(POWER)
    assert reading_of(meter, world, 5).joules is not None


def test_nvml_gpu_without_energy_and_power(world: World, board: Board) -> None:
    board.unsupported = {ENERGY, POWER}
    with pytest.raises(NoMeter, match="neither its energy nor its power"):
        gpu_meter(world, board)


def test_nvml_without_driver(world: World, board: Board) -> None:
    module = Nvml(board)
    module.broken = True
    with pytest.raises(NoMeter, match=r"Driver Not Loaded.*`nvidia-smi`"):
        nvml.open_meter(world.clock, module, {})


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "gpu 0"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, "gpu 1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb,GPU-aa"}, "gpu 1"),
    ],
)
def test_nvml_meters_the_gpu_that_cuda_uses(environ: dict[str, str], name: str, world: World) -> None:
    first, second = Board(world), Board(world, uuid="GPU-bbbb-1234")
    first.watts, second.watts = 100.0, 600.0
    reading = reading_of(gpu_meter(world, first, second, **environ), world, 10)
    assert name in reading.scope
    assert reading.joules == pytest.approx(1000 if name == "gpu 0" else 6000, rel=0.02)


@pytest.mark.parametrize("visible", ["", "-1", "2", "GPU-cccc", "GPU-", "NoDevFiles"])
def test_nvml_without_a_visible_gpu(visible: str, world: World, board: Board) -> None:
    with pytest.raises(NoMeter, match="CUDA_VISIBLE_DEVICES"):
        gpu_meter(world, board, Board(world, uuid="GPU-bbbb"), CUDA_VISIBLE_DEVICES=visible)


def test_nvml_does_not_guess_among_unlike_gpus(world: World, board: Board) -> None:
    other = Board(world, "NVIDIA T4", "GPU-bbbb")
    with pytest.raises(NoMeter, match="`export CUDA_DEVICE_ORDER=PCI_BUS_ID`"):
        gpu_meter(world, board, other)
    assert "gpu 0" in gpu_meter(world, board, other, CUDA_DEVICE_ORDER="PCI_BUS_ID").scope
    assert "gpu 1" in gpu_meter(world, board, other, CUDA_VISIBLE_DEVICES="GPU-bbbb").scope


def test_nvml_does_not_take_a_board_for_its_slice(world: World, board: Board) -> None:
    with pytest.raises(NoMeter, match="MIG"):
        gpu_meter(world, board, CUDA_VISIBLE_DEVICES="MIG-1234")
    board.mig = [1, 1]
    with pytest.raises(NoMeter, match="MIG"):
        gpu_meter(world, board)
