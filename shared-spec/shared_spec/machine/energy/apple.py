"""Apple Silicon through zeus-apple-silicon: the chip's own energy model (IOReport, "Energy Model"), without root.

The figures are modelled by macOS from load, clocks and voltages; they are no measurement of current, and say so in
their scope. Summed are CPU, GPU and neural engine, as `powermetrics` does for its combined power, and memory, where
the chip tells (some M1 do not). Left out are the clusters and cores, which are parts of the CPU figure, and the
GPU's SRAM: nobody says whether the GPU figure holds it already, and newer chips do not tell it.

All but the GPU's counter move in steps of about 2.2 s (lablup/all-smi#415), so a window of 10 s may be off by a
fifth of its CPU and memory part. A query takes 3 to 12 ms (#424 there). On macOS 27 the same counters may stand still
(vladkens/macmon#76): that is a null, not 0 W for the CPU. The GPU's own figure may be 0, since an idle GPU is off.
"""

import signal
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

from shared_spec.machine.energy.meter import Clock, NoMeter, implausible
from shared_spec.results.quantities import Energy, EnergySource

STEP_SECONDS = 2.2
UPDATE_SECONDS = 2.5
"""A little longer than a step: a counter that has not moved for so long stands still."""
MAX_WATTS = 500.0
"""More than the power supply of any Mac but the Mac Pro gives, so more than any of these chips takes."""
PARTS = {"cpu_total_mj": "CPU", "gpu_mj": "GPU", "ane_mj": "neural engine", "dram_mj": "memory"}
REQUIRED = ("cpu_total_mj", "gpu_mj")
WINDOW = "deit-bench"
WAKE = "sudo powermetrics --samplers cpu_power -i 1000 -o /dev/null"


def load() -> Any:
    """The zeus_apple_silicon module.

    Raises:
        NoMeter: it is not installed, or this is no Apple Silicon Mac.
    """
    try:
        import zeus_apple_silicon  # noqa: PLC0415  (optional)
    except ImportError:
        raise NoMeter(
            "the meter of Apple Silicon is not installed (a Mac with an Intel processor has none): "
            "`pip install zeus-apple-silicon`"
        ) from None
    return zeus_apple_silicon


PROBE = "import zeus_apple_silicon as zeus; zeus.AppleEnergyMonitor().get_cumulative_energy()"
PROBE_SECONDS = 15.0


@cache
def check_apart() -> None:
    """Try the meter in a process of its own, as it crashes in some virtual machines.

    Raises:
        NoMeter: it failed, crashed or hung there.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoMeter(
            f"zeus-apple-silicon could not be tried in a process of its own ({type(error).__name__})"
        ) from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise NoMeter(f"zeus-apple-silicon crashes on this chip or virtual machine ({name})")
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["no words"])[-1]
        raise NoMeter(f"macOS gives no access to the chip's energy counters ({words})")


def open_meter(clock: Clock, zeus: Any = None) -> "AppleMeter":
    """The meter of the whole chip; `zeus` stands in for the zeus_apple_silicon module, and is not tried apart.

    Raises:
        NoMeter: not installed, no access, or a chip whose CPU or GPU it cannot read.
    """
    if zeus is None:
        if find_spec("zeus_apple_silicon") is not None:
            check_apart()
        zeus = load()
    try:
        monitor = zeus.AppleEnergyMonitor()
        energy = monitor.get_cumulative_energy()
    except Exception as error:  # RuntimeError as a rule, ValueError over a unit that it does not know
        raise NoMeter(f"macOS gives no access to the chip's energy counters ({error})") from None
    parts = [field for field in PARTS if getattr(energy, field) is not None]
    missing = [PARTS[field] for field in REQUIRED if field not in parts]
    if missing:
        raise NoMeter(f"zeus-apple-silicon cannot read this chip's {' and '.join(missing)} energy")
    return AppleMeter(monitor, parts, clock)


class AppleMeter:
    """What the chip's energy model adds up to in the window."""

    source: EnergySource = "apple-soc"

    def __init__(self, monitor: Any, parts: list[str], clock: Clock) -> None:
        self.scope = f"whole chip ({', '.join(PARTS[field] for field in parts)}), modelled by macOS"
        self._monitor, self._parts, self._clock = monitor, parts, clock
        self._running = False

    def start(self) -> None:
        if self._running:
            self._monitor.end_window(WINDOW)
        self._monitor.begin_window(WINDOW)
        self._running, self._started = True, self._clock()

    def stop(self) -> Energy:
        energy, seconds = self._monitor.end_window(WINDOW), self._clock() - self._started
        self._running = False
        millijoules = {field: getattr(energy, field) for field in self._parts}
        reason = self._objection(millijoules, seconds)
        joules = None if reason else sum(millijoules.values()) / 1000
        return Energy(
            joules=joules, reason=reason, source=self.source, scope=self.scope, samples=1, step_seconds=STEP_SECONDS
        )

    def _objection(self, millijoules: dict[str, int | None], seconds: float) -> str | None:
        """Why the figures cannot be true; None where they can."""
        values = [value for value in millijoules.values() if value is not None]
        if len(values) < len(millijoules) or min(values) < 0:
            return "a part of the chip's energy model went missing or ran backwards"
        if millijoules["cpu_total_mj"] == 0 and seconds > UPDATE_SECONDS:
            return (
                f"the CPU's energy counter did not move in {seconds:.3g} s, as happens on macOS 27; "
                f"`{WAKE}` in a second terminal is reported to wake it"
            )
        return implausible(sum(values) / 1000, seconds, UPDATE_SECONDS, MAX_WATTS)
