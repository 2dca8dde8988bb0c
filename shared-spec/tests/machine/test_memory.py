"""Memory of a process as driver and system book it."""

from fake_meters import World

from shared_spec.machine import memory
from shared_spec.machine.memory import DriverPeak


def test_the_drivers_peak_outlives_what_is_given_back(world: World) -> None:
    booked: list[int | None] = [1000]
    with DriverPeak(lambda: booked[0], world.sampler()) as peak:
        world.run(3)
        booked[0] = 9000
        world.run(3)
        booked[0] = 2000
        world.run(3)
        assert peak.read() == 9000
        booked[0] = 9500
        assert peak.read() == 9500  # also what is booked at the moment it is read


def test_a_driver_that_never_tells_gives_no_figure(world: World) -> None:
    with DriverPeak(lambda: None, world.sampler()) as peak:
        world.run(5)
        assert peak.read() is None


def test_only_a_gpu_run_has_figures_of_the_driver(world: World) -> None:
    peak = DriverPeak(lambda: 7, world.sampler())
    assert memory.of_process("cuda", peak)["nvml_process_peak"] == 7
    assert not [name for name in memory.of_process("cpu", None) if name.startswith("nvml")]
