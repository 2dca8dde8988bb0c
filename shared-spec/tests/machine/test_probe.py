"""What a machine that raises, hangs or tells nonsense makes of a run's side facts: null, and why."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fake_platform.backend import cpu_info
from pydantic import TypeAdapter

from shared_spec.machine import facts, memory, nvml, watch
from shared_spec.machine.energy import apple, rapl
from shared_spec.machine.energy import nvml as nvml_meter
from shared_spec.machine.energy import open as opening
from shared_spec.machine.energy.guarded import GuardedMeter
from shared_spec.machine.energy.meter import NoMeter, Unmetered
from shared_spec.machine.probe import Asker, Findings, Unread, within
from shared_spec.measure.clock import monotonic, utc_now
from shared_spec.results import privacy
from shared_spec.results.format import Facts
from shared_spec.results.quantities import Energy, EnergySource
from shared_spec.schema import Model


class Panic(BaseException):
    """As bindings in Rust raise it."""


ERRORS = [SystemError("<built-in function> returned a result with an exception set"), FileNotFoundError(2, "No such file"),
          NotImplementedError("can't find current frequency file"), AttributeError("x"), Panic("unwrap on None")]  # fmt: skip
QUESTIONS = [
    "cpu_count", "virtual_memory", "swap_memory", "sensors_temperatures", "sensors_battery", "cpu_freq", "getloadavg",
    "boot_time",
]  # fmt: skip


@pytest.fixture
def endless() -> Iterator[Callable[[], None]]:
    """A question that is answered when the test is over."""
    over = threading.Event()
    yield lambda: over.wait(30) and None
    over.set()


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def collected(asker: Asker | None = None) -> dict[str, Any]:
    found = {**facts.collect("cuda", asker), **facts.state("cuda", utc_now(), asker)}
    TypeAdapter(Facts, config=Model.model_config).validate_python(privacy.scrub(found))
    facts.warnings(found)
    return found


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_fact_that_cannot_be_read_is_null_with_its_reason(
    question: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpuinfo.get_cpu_info", cpu_info)
    monkeypatch.setattr(psutil, question, raising(error), raising=False)
    state, environment = facts.state("cpu", utc_now()), facts.collect("cpu")
    reasons = [reason for side in (environment, state) for reason in side.get("unread", [])]
    assert any(type(error).__name__ in reason for reason in reasons)
    TypeAdapter(Facts, config=Model.model_config).validate_python({**environment, **state})
    facts.warnings({**environment, **state})


def test_every_fact_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(Asker):
        def ask(self, question: Callable[[], Any], seconds: float | None = None) -> Any:
            raise Unread("nothing here can be read")

    found = collected(Nothing())
    assert {value for name, value in found.items() if name != "unread"} == {None}
    assert "cpu_clock_mhz: nothing here can be read" in found["unread"]


def test_a_fact_that_hangs_is_given_up(endless: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpuinfo.get_cpu_info", cpu_info)
    monkeypatch.setattr(psutil, "sensors_temperatures", endless, raising=False)
    found = facts.state("cpu", utc_now(), Asker(0.05))
    assert found["hottest_sensor_celsius"] is None
    assert "hottest_sensor_celsius: no answer within 0.05 s" in found["unread"]
    assert found["memory_available_bytes"] > 0


@pytest.mark.parametrize(("mhz", "kept"), [(4.0, None), (0.0, None), (3200.0, 3200.0), (4.5e6, None)])
def test_a_clock_that_cannot_be_is_null(mhz: float, kept: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil tells 4 MHz on an M4."""
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=mhz, min=0, max=0), raising=False)
    found = facts.state("cpu", utc_now())
    assert found["cpu_clock_mhz"] == kept
    assert any(f"cpu_clock_mhz: the system says {mhz:g} MHz" in reason for reason in found.get("unread", [])) == (
        not kept
    )


def test_a_sensor_that_is_not_connected_is_not_the_hottest(monkeypatch: pytest.MonkeyPatch) -> None:
    def sensors() -> dict[str, Any]:
        return {"chip": [SimpleNamespace(current=value) for value in (-273.0, 41.5, 255.0, None)]}

    monkeypatch.setattr(psutil, "sensors_temperatures", sensors, raising=False)
    assert facts.state("cpu", utc_now())["hottest_sensor_celsius"] == 41.5


def test_values_that_no_result_can_hold_are_null() -> None:
    found = Findings()
    for name, value in {
        "nan": float("nan"),
        "huge": 1 << 64,
        "object": object(),
        "long": "x" * 9000,
        "b": "a\udce9",
    }.items():
        found.add(name, lambda value=value: value)
    assert found.facts == {"nan": None, "huge": None, "object": None, "long": "x" * 4000, "b": "a\\udce9"}
    assert len(found.unread) == 3


def test_after_an_endless_question_the_next_is_answered(endless: Callable[[], None]) -> None:
    asker = Asker(0.05)
    with pytest.raises(Unread, match=r"no answer within 0\.05 s"):
        asker.ask(endless)
    assert asker.ask(lambda: 3) == 3


def test_questions_are_asked_on_one_thread() -> None:
    asker = Asker()
    threads = {asker.ask(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    with pytest.raises(Unread, match="ValueError: bad luck"):
        asker.ask(raising(ValueError("bad\n  luck")))
    assert {asker.ask(threading.get_ident)} == threads


def test_impossible_values() -> None:
    assert within(None, 1, 2, "x") is None
    with pytest.raises(Unread, match="says 3 x, which cannot be"):
        within(3, 1, 2, "x")


# Meters and what watches a phase


class Faulty(Unmetered):
    """A meter that works until it is asked to `fail`."""

    source: EnergySource = "rapl-package"
    scope = "everything"
    fail: Callable[[], Any] | None = None

    def __init__(self) -> None:
        super().__init__("none")

    def stop(self) -> Energy:
        return (
            self.fail()
            if self.fail
            else Energy(joules=1.0, reason=None, source=self.source, scope=self.scope, samples=1)
        )


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_meter_that_raises_gives_null_from_then_on(error: BaseException) -> None:
    inner = Faulty()
    meter = GuardedMeter(lambda: inner)
    meter.start()
    assert meter.stop().joules == 1.0
    inner.fail = raising(error)
    for _ in range(2):
        meter.start()
        reading = meter.stop()
        assert reading.joules is None
        assert type(error).__name__ in str(reading.reason)
    assert (reading.source, reading.scope) == ("rapl-package", "everything")


def test_a_meter_that_hangs_is_asked_once(endless: Callable[[], None]) -> None:
    inner = Faulty()
    inner.fail = endless
    meter = GuardedMeter(lambda: inner, Asker(0.05))
    meter.start()
    assert "no answer within 0.05 s" in str(meter.stop().reason)
    inner.fail = None
    assert meter.stop().joules is None


@pytest.mark.parametrize("platform", ["darwin", "linux"])
@pytest.mark.parametrize("error", [*ERRORS, NoMeter("no meter here")], ids=lambda error: type(error).__name__)
def test_a_meter_that_cannot_be_opened_is_none(
    platform: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for module in (apple, rapl, nvml_meter):
        monkeypatch.setattr(module, "open_meter", raising(error))
    meter = opening.open_meter("cpu", None, monotonic)
    meter.start()
    reading = meter.stop()
    assert reading.joules is None
    assert str(error).split()[0] in str(reading.reason)


@pytest.mark.parametrize("question", ["cpu_times", "swap_memory"])
def test_a_watch_that_is_told_nothing_ends_no_phase(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, question, raising(SystemError("x")))
    watching = watch.Watch("cpu", Unmetered("none"), monotonic)
    watching.start()
    found = watching.stop()
    assert None in found.values()
    assert "SystemError: x" in found["unread"][0]
    assert all("swap" not in words for words in watch.warnings({"training 1": found}))


def test_a_driver_that_fails_while_a_phase_runs_is_asked_once() -> None:
    asked = []

    def state(own_processes: int) -> dict[str, Any]:
        asked.append(own_processes)
        raise SystemError("driver gone")

    watching = watch.Watch("cuda", Unmetered("none"), monotonic, state)
    watching.start()
    watching._look()
    watching._look()
    found = watching.stop()
    assert len(asked) == 1
    assert found["unread"] == ["gpu: SystemError: driver gone"]
    assert found["gpu_temperature_celsius_max"] is None


def test_bindings_that_do_not_fit_the_driver_tell_nothing() -> None:
    class Bindings:
        NVMLError = OSError

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    assert set(nvml.facts(Bindings()).values()) == {None}
    assert set(nvml.state(Bindings()).values()) == {None}


def test_memory_that_cannot_be_read_ends_no_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "host_peak_bytes", raising(SystemError("x")))
    monkeypatch.setattr(psutil, "Process", raising(SystemError("x")))
    assert memory.of_process("cpu")["host_peak"] is None
    assert memory.resident_bytes() is None
