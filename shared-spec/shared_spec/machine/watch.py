"""The machine while a phase runs, seen from the parent: power for the screen, and whatever spoils a measurement.

A look every five seconds costs a few queries of the driver or of /proc, in another process than the one measured.
"""

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from shared_spec.machine import nvml
from shared_spec.machine.energy.meter import Clock, Meter
from shared_spec.machine.facts import Facts
from shared_spec.machine.probe import Asker, Findings, Unread
from shared_spec.machine.sampler import Sampler

Number = TypeVar("Number", int, float)

LOOK_SECONDS = 5.0
FOREIGN_SHARE = 0.1
"""Others' part of the processor's time above which a phase is said to have been disturbed."""
STOLEN_SHARE = 0.05
"""The same for what the host of a virtual machine took away."""
SWAP_BYTES = 64 << 20
BUSY_PERCENT = 50
"""Clocks of the GPU count only while it is loaded at least so much; an idle one clocks down, rightly."""
BUSY = ("user", "nice", "system", "irq", "softirq")
THERMAL = Path("/sys/devices/system/cpu")


class Watch:
    """Looks at the machine from start() to stop().

    Attributes:
        watts: power as last seen; None where there is no meter.
    """

    def __init__(
        self, device: str, meter: Meter, clock: Clock, gpu_state: Callable[..., Facts] = nvml.state,
        sampler: type[Sampler] = Sampler,
    ) -> None:  # fmt: skip
        self._on_gpu, self._meter, self._clock, self._gpu_state = device == "cuda", meter, clock, gpu_state
        self._sampler = sampler(self._look, LOOK_SECONDS)
        self._looks: list[Facts] = []
        self._asker = Asker()
        self._gpu_unread: str | None = None
        self.watts: float | None = None

    def start(self) -> None:
        """Begin to look."""
        self._looks, self.watts, self._before = [], None, _Counters(self._clock)
        self._start_meter()
        self._sampler.start()

    def stop(self) -> Facts:
        """Facts of the phase by name (results.schema.json: conditions); call it when the phase process has ended."""
        self._sampler.stop()
        self._meter.stop()
        self.watts = None
        after = _Counters(self._clock)
        unread = after.unread + ([f"gpu: {self._gpu_unread}"] if self._gpu_unread else [])
        seen = {**after.since(self._before), **(_of_gpu(self._looks) if self._on_gpu else {})}
        return {**seen, "unread": unread} if unread else seen

    def _start_meter(self) -> None:
        self._metered_from = self._clock()
        self._meter.start()

    def _look(self) -> None:
        reading, seconds = self._meter.stop(), self._clock() - self._metered_from
        self._start_meter()
        if reading.joules is not None and seconds > 0:
            self.watts = reading.joules / seconds
        if self._on_gpu and self._gpu_unread is None:
            self._look_at_gpu(also_power=reading.joules is None)

    def _look_at_gpu(self, also_power: bool) -> None:
        """A GPU whose driver fails or hangs once is not asked again."""
        try:
            self._looks.append(self._asker.ask(lambda: self._gpu_state(own_processes=1)))
        except Unread as reason:
            self._gpu_unread = str(reason)
            return
        if also_power:
            self.watts = self._looks[-1]["gpu_power_watts"]


class _Counters:
    """What the system has counted up to now: processor time, throttling and swap; None where it does not tell."""

    def __init__(self, clock: Clock) -> None:
        found = Findings()
        found.add_all("times", ("busy", "stolen"), _cpu_seconds)
        found.add("throttled", _throttle_events)
        found.add("swap", lambda: psutil.swap_memory().used)
        self.at, self.own, self.unread = clock(), _own_cpu_seconds(), found.unread
        self.busy, self.stolen = found.facts["busy"], found.facts["stolen"]
        self.throttled, self.swap = found.facts["throttled"], found.facts["swap"]

    def since(self, before: "_Counters") -> Facts:
        """What happened in between, as shares of all cores' time and as counts."""
        whole = max(self.at - before.at, 1e-9) * (os.cpu_count() or 1)
        busy, stolen = _gain(before.busy, self.busy), _gain(before.stolen, self.stolen)
        swapped = _gain(before.swap, self.swap)
        return {
            "cpu_foreign_share": None if busy is None else _share(busy - (self.own - before.own), whole),
            "cpu_stolen_share": None if stolen is None else _share(stolen, whole),
            "cpu_throttle_events": _gain(before.throttled, self.throttled),
            "swap_grown_bytes": None if swapped is None else max(0, swapped),
        }


def _gain(before: Number | None, after: Number | None) -> Number | None:
    return None if before is None or after is None else after - before


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole))


def _cpu_seconds() -> Facts:
    times = psutil.cpu_times()
    return {
        "busy": float(sum(getattr(times, name, 0.0) for name in BUSY)),
        "stolen": getattr(times, "steal", None),
    }


def foreign_share(clock: Clock) -> Callable[[], float | None]:
    """Begin to watch what others take of the processor; what is returned says how much it has been, 0 to 1, since."""
    before = _Counters(clock)

    def since() -> float | None:
        share: float | None = _Counters(clock).since(before)["cpu_foreign_share"]
        return share

    return since


def _own_cpu_seconds() -> float:
    """Processor time of this process and of all its descendants that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _throttle_events() -> int | None:
    """How often processor cores were throttled for heat since the start of the system; None where Linux does not tell."""
    counts = []
    for path in THERMAL.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        try:
            counts.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return None
    return sum(counts) if counts else None


def _of_gpu(looks: list[Facts]) -> Facts:
    """Extremes of what was seen of the GPU; None where it told nothing."""

    def seen(name: str, among: list[Facts]) -> list[Any]:
        return [look[name] for look in among if look[name] is not None]

    busy = [look for look in looks if (look["gpu_utilisation_percent"] or 0) >= BUSY_PERCENT]
    reasons = [reason for look in seen("gpu_throttle_reasons", busy) for reason in look if reason != "gpu_idle"]
    clocks = seen("gpu_sm_clock_mhz", busy)
    return {
        "gpu_looks": len(looks),
        "gpu_temperature_celsius_max": max(seen("gpu_temperature_celsius", looks), default=None),
        "gpu_power_watts_max": max(seen("gpu_power_watts", looks), default=None),
        "gpu_sm_clock_mhz_min": min(clocks, default=None),
        "gpu_sm_clock_mhz_max": max(clocks, default=None),
        "gpu_throttle_reasons": list(dict.fromkeys(reasons)) if busy else None,
        "gpu_foreign_processes": max(seen("gpu_foreign_processes", looks), default=None),
    }


def warnings(conditions: Mapping[str, Facts | None]) -> list[str]:
    """A sentence for each kind of disturbance, naming the phases; `conditions` are by title of the phase."""
    titles: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    for title, facts in conditions.items():
        for kind, text in _objections(facts or {}).items():
            titles.setdefault(kind, []).append(title)
            words.setdefault(kind, text)
    return [f"{text}{_where(titles[kind])}" for kind, text in words.items()]


def _where(titles: list[str]) -> str:
    first, *others = titles
    return f" (in {first}; also in {', '.join(others)})" if others else f" in {first}"


def _objections(conditions: Facts) -> dict[str, str]:
    """What may have spoilt a phase, in words by kind."""
    objections = {}
    if conditions.get("ended_early"):
        objections["early"] = "its time was over, so less was measured than its profile asks for,"
    if (conditions.get("cpu_foreign_share") or 0) > FOREIGN_SHARE:
        objections["foreign"] = f"other processes took {conditions['cpu_foreign_share']:.0%} of the processor's time"
    if (conditions.get("cpu_stolen_share") or 0) > STOLEN_SHARE:
        share = conditions["cpu_stolen_share"]
        objections["stolen"] = f"the host of this virtual machine took away {share:.0%} of the processor's time"
    if conditions.get("cpu_throttle_events"):
        objections["hot"] = f"the processor was throttled for heat {conditions['cpu_throttle_events']:,} times"
    if (conditions.get("swap_grown_bytes") or 0) > SWAP_BYTES:
        objections["swap"] = f"memory was short: {conditions['swap_grown_bytes'] / 2**20:,.0f} MiB went to swap"
    if conditions.get("gpu_throttle_reasons"):
        objections["gpu"] = f"the GPU's clock was held down: {', '.join(conditions['gpu_throttle_reasons'])}"
    if conditions.get("gpu_foreign_processes"):
        objections["gpu foreign"] = f"{conditions['gpu_foreign_processes']} other processes were on the GPU"
    return objections
