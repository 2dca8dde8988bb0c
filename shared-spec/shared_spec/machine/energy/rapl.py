"""Processors of Intel and AMD through RAPL, as Linux offers it under powercap.

Summed are the packages, nothing else. Their subdomains core and uncore are parts of them, and memory (dram) exists
on some machines alone, so that counting it in would make machines incomparable: it is a figure beside it. psys, the
whole platform, contains the package and whatever else the board's maker wired to it, on some boards less than the
package: it is never added, and is used only where no package is to be had. The second tree, intel-rapl-mmio, shows the
same packages again.

The counters wrap, at 262 kJ on most processors and at 65 kJ on others: at 200 W every 22 or every five minutes. A
window may hold many wraps, so a thread looks at the counters several times within the shortest time in which one can
wrap; stop() waits for a look under way. Format: https://docs.kernel.org/power/powercap/powercap.html
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared_spec.machine.energy.meter import Clock, NoMeter, implausible
from shared_spec.machine.sampler import Sampler
from shared_spec.results.quantities import Energy, EnergySource

ROOT = Path("/sys/class/powercap")
UPDATE_SECONDS = 0.1
"""Longer than the counters stand still; generous, since the files are read one after the other."""
STEP_SECONDS = 0.001
"""The counters move about every millisecond (Intel's manual, volume 3, section 16.10)."""
MAX_WATTS = 1000.0
"""More than any processor package takes: bounds how fast a counter can wrap, and tells a reset from a wrap."""
LOOKS_PER_WRAP = 4
MEMORY = "memory"


RULE = 'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
"""Of udev, which has it carried out at each start of the system. Kernels since 5.10 let root alone read the counters, as
they tell other processes' secrets (CVE-2020-8694): for a machine of one's own."""
PERMIT = (
    f"echo '{RULE}' | sudo tee /etc/udev/rules.d/70-rapl.rules && sudo udevadm control --reload && "
    "sudo udevadm trigger --action=add --subsystem-match=powercap"
)


@dataclass(frozen=True)
class Domain:
    """One counter, in microjoules, that starts again from 0 at `range_uj`."""

    name: str
    counter: Path
    range_uj: int

    def read_uj(self) -> int:
        return int(self.counter.read_text())


def open_meter(clock: Clock, root: Path = ROOT, sampler: type[Sampler] = Sampler) -> "RaplMeter":
    """The meter of all packages, or of the platform where there are none.

    Raises:
        NoMeter: no counters here, no permission, or one of several packages cannot be read.
    """
    zones = _zones(root)
    packages = [_domain(zone, name) for zone, name in zones if name.startswith("package")]
    if packages:
        return RaplMeter(packages, "rapl-package", f"{_packages(len(packages))}, {MEMORY} not included", clock, sampler)
    platform = [_domain(zone, name) for zone, name in zones if name.startswith("psys")]
    if platform:
        return RaplMeter(platform, "rapl-psys", "platform as its maker defines it (psys)", clock, sampler)
    raise NoMeter(
        "Linux shows no energy counters of the processor: a virtual machine, a container, a processor without them, "
        "or a driver that `sudo modprobe intel_rapl_msr` loads"
    )


def open_packages(clock: Clock, root: Path = ROOT, sampler: type[Sampler] = Sampler) -> "RaplMeter":
    """The meter of all packages and nothing else.

    Raises:
        NoMeter: as `open_meter`, and where there is the platform's counter alone.
    """
    meter = open_meter(clock, root, sampler)
    if meter.source != "rapl-package":
        raise NoMeter("this processor shows the energy of the whole platform alone")
    return meter


def open_memory(clock: Clock, root: Path = ROOT, sampler: type[Sampler] = Sampler) -> "RaplMeter":
    """The meter of the memory beside the packages.

    Raises:
        NoMeter: no such counters, or no permission.
    """
    memory = [_domain(zone, name) for zone, name in _zones(root) if name == "dram"]
    if not memory:
        raise NoMeter("this processor has no energy counter for memory (dram)")
    return RaplMeter(memory, "rapl-package", MEMORY, clock, sampler)


def _packages(count: int) -> str:
    return f"processor packages ({count})"


def _zones(root: Path) -> list[tuple[Path, str]]:
    """Zones of the tree, parts of others among them, and their names ("package-0", "core", "psys")."""
    zones = []
    for zone in sorted(root.glob("intel-rapl:*")):
        with contextlib.suppress(OSError):  # in a container the zones may be links that lead nowhere
            zones.append((zone, (zone / "name").read_text().strip()))
    return zones


def _domain(zone: Path, name: str) -> Domain:
    """The zone's counter, proven to be readable."""
    try:
        domain = Domain(name, zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
        domain.read_uj()
    except PermissionError:
        raise NoMeter(
            f"only root may read the processor's energy counters; `{PERMIT}` lets everybody, after a restart too"
        ) from None
    except (OSError, ValueError) as error:
        raise NoMeter(f"the processor's energy counter {name} cannot be read ({type(error).__name__})") from None
    return domain


class RaplMeter:
    """What the counters gained in the window, wraps included."""

    def __init__(
        self,
        domains: Sequence[Domain],
        source: EnergySource,
        scope: str,
        clock: Clock,
        sampler: type[Sampler] = Sampler,
    ) -> None:
        self.source, self.scope = source, scope
        self._domains, self._clock = domains, clock
        self._shortest_wrap = min(domain.range_uj for domain in domains) / 1e6 / MAX_WATTS
        self._sampler = sampler(self._look, self._shortest_wrap / LOOKS_PER_WRAP)
        self._forget()

    def start(self) -> None:
        self._sampler.stop()
        self._forget()
        self._look()
        self._sampler.start()

    def stop(self) -> Energy:
        self._sampler.stop()
        self._look()
        joules = None if self._objection else self._microjoules / 1e6
        return Energy(
            joules=joules,
            reason=self._objection,
            source=self.source,
            scope=self.scope,
            samples=1,
            step_seconds=STEP_SECONDS,
        )

    def _forget(self) -> None:
        self._microjoules = 0
        self._last: tuple[float, list[int]] | None = None
        self._objection: str | None = None

    def _look(self) -> None:
        """Add what the counters gained since the last look; one that is below its last value has wrapped once."""
        try:
            now, counts = self._clock(), [domain.read_uj() for domain in self._domains]
        except (OSError, ValueError) as error:
            self._objection = f"the processor's energy counters could no longer be read ({type(error).__name__})"
            return
        if self._last is not None:
            then, before = self._last
            for domain, old, new in zip(self._domains, before, counts, strict=True):
                self._add(domain, (new - old) % domain.range_uj, now - then)
        self._last = now, counts

    def _add(self, domain: Domain, gained_uj: int, seconds: float) -> None:
        self._microjoules += gained_uj
        if seconds > self._shortest_wrap:
            objection: str | None = f"the counters went unread for {seconds:.3g} s and may have wrapped more than once"
        else:
            objection = implausible(gained_uj / 1e6, seconds, UPDATE_SECONDS, MAX_WATTS)
        if objection and not self._objection:
            self._objection = f"{domain.name}: {objection}"
