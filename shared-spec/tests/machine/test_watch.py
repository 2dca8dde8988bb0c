"""What the parent sees of the machine while a phase runs."""

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from shared_spec.machine import watch
from shared_spec.machine.energy.meter import Unmetered
from shared_spec.machine.energy.wall import WallMeter
from shared_spec.machine.watch import Watch, warnings
from shared_spec.results.format import Facts
from shared_spec.results.quantities import Energy
from shared_spec.schema import Model

CALM = {"cpu_foreign_share": 0.01, "cpu_stolen_share": None, "cpu_throttle_events": 0, "swap_grown_bytes": 0}


def look(**changed: Any) -> dict[str, Any]:
    return {
        "gpu_temperature_celsius": 60, "gpu_power_watts": 400.0, "gpu_sm_clock_mhz": 1900,
        "gpu_throttle_reasons": [], "gpu_foreign_processes": 0, "gpu_utilisation_percent": 98, **changed,
    }  # fmt: skip


def on_gpu(*looks: dict[str, Any]) -> tuple[Watch, dict[str, Any]]:
    """A watch that has had these looks at the GPU, and what it found."""
    waiting = list(looks)
    watching = Watch("cuda", Unmetered("none"), time.monotonic, lambda own_processes: waiting.pop(0))
    watching.start()
    for _ in looks:
        watching._look()
    seen = watching.watts
    found = watching.stop()
    assert watching.watts is None
    watching.watts = seen
    return watching, found


def test_extremes_of_the_gpu_are_kept() -> None:
    watching, found = on_gpu(
        look(gpu_sm_clock_mhz=210, gpu_utilisation_percent=0, gpu_throttle_reasons=["gpu_idle", "sw_power_cap"]),
        look(gpu_temperature_celsius=81, gpu_sm_clock_mhz=1600, gpu_throttle_reasons=["hw_thermal_slowdown"]),
        look(gpu_foreign_processes=2, gpu_power_watts=650.0),
    )
    assert watching.watts == 650.0
    assert {name: found[name] for name in found if name.startswith("gpu")} == {
        "gpu_looks": 3,
        "gpu_temperature_celsius_max": 81,
        "gpu_power_watts_max": 650.0,
        "gpu_sm_clock_mhz_min": 1600,  # the idle look does not count
        "gpu_sm_clock_mhz_max": 1900,
        "gpu_throttle_reasons": ["hw_thermal_slowdown"],
        "gpu_foreign_processes": 2,
    }


def test_a_gpu_that_tells_nothing_gives_nulls() -> None:
    _, found = on_gpu(dict.fromkeys(look()))
    assert {value for name, value in found.items() if name.startswith("gpu") and name != "gpu_looks"} == {None}


def test_watts_come_from_the_meter_where_there_is_one() -> None:
    now = [0.0]
    watching = Watch("cpu", WallMeter(65.0, lambda: now[0]), lambda: now[0])
    watching.start()
    now[0] += 5.0
    watching._look()
    assert watching.watts == pytest.approx(65.0)
    watching.stop()


def test_a_meter_that_fails_keeps_the_last_watts() -> None:
    class Failing(WallMeter):
        def stop(self) -> Energy:
            return Energy(joules=None, reason="gone", source="none", scope="nothing", samples=0)

    watching = Watch("cpu", Failing(1.0, time.monotonic), time.monotonic)
    watching.start()
    watching._look()
    assert watching.watts is None
    watching.stop()


BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"


def test_own_children_are_not_foreign_and_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that this one waits for is its own; one that it does not wait for counts as somebody else's.

    The system's count of busy time is played, as other tests run beside this one; what processes used is real.
    """
    now, busy = [0.0], [0.0]
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=busy[0]))
    watching = Watch("cpu", Unmetered("none"), lambda: now[0])

    def share(waited_for: bool) -> float:
        watching.start()
        with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            used = float(child.stdout.readline())
            now[0], busy[0] = now[0] + 1.0, busy[0] + used
            if waited_for:
                child.communicate(b"\n")
            foreign: float = watching.stop()["cpu_foreign_share"]
            if not waited_for:
                child.communicate(b"\n")
        return foreign * (psutil.cpu_count() or 1) / used

    assert share(waited_for=True) == 0.0
    assert share(waited_for=False) > 0.5


def test_the_systems_busy_time_is_counted() -> None:
    before = watch._Counters(time.monotonic)
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = watch._Counters(time.monotonic)
    assert after.busy > before.busy > 0
    assert 0.0 <= after.since(before)["cpu_foreign_share"] <= 1.0


def test_what_is_found_fits_the_schema() -> None:
    for found in (on_gpu(look())[1], CALM):
        TypeAdapter(Facts, config=Model.model_config).validate_python(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu_foreign_share": 0.3}, "other processes took 30%"),
        ({"cpu_stolen_share": 0.2}, "took away 20%"),
        ({"cpu_throttle_events": 7}, "throttled for heat 7 times"),
        ({"swap_grown_bytes": 1 << 30}, "1,024 MiB went to swap"),
        ({"gpu_throttle_reasons": ["hw_thermal_slowdown"]}, "clock was held down: hw_thermal_slowdown"),
        ({"gpu_foreign_processes": 1}, "1 other processes were on the GPU"),
    ],
)
def test_disturbances_are_told_with_their_phases(change: dict[str, Any], words: str) -> None:
    assert warnings({"training 1": CALM, "latency 1": None}) == []
    (alone,) = warnings({"training 1": CALM, "latency 1": {**CALM, **change}})
    assert words in alone
    assert alone.endswith("in latency 1")
    (several,) = warnings({f"training {n}": {**CALM, **change} for n in (1, 2, 3)})
    assert "(in training 1; also in training 2, training 3)" in several
