"""What a result was measured on, under the short name that tables and prices know it by."""

import re
from dataclasses import dataclass
from functools import cached_property

from shared_spec.results.format import Result

FILLER = r"\((R|TM|C)\)|\s@.*|\b(CPU|Processor|\d+-Cores?|GeForce)\b|\bwith .*"
"""What device names hold that tells no two apart."""
UNKNOWN = ("unknown", "unknown device")
"""Names that name nothing, so that two devices called so need not be the same."""


def plain_name(name: str) -> str:
    """A device's name without trademarks and filler; as it is where nothing else is in it."""
    return " ".join(re.sub(FILLER, " ", name, flags=re.IGNORECASE).split()) or name


@dataclass(frozen=True)
class Hardware:
    """What ran; `cores` (physical) only for CPUs, whose name says nothing of how many a machine has."""

    kind: str
    name: str
    count: int
    cores: int | None

    @cached_property
    def model(self) -> str:
        """The name without trademarks and filler: "Intel Xeon Platinum 8488C"."""
        name = plain_name(self.name)
        return f"{self.count} x {name}" if self.count > 1 else name

    @property
    def parts(self) -> list[str]:
        """The model and, of a CPU, the cores: ["Intel Xeon Platinum 8488C", "2 cores"]."""
        return [self.model, f"{self.cores} core{'s' * (self.cores != 1)}"] if self.cores else [self.model]

    @property
    def short(self) -> str:
        """Model and cores, on one line."""
        return ", ".join(self.parts)

    @property
    def known(self) -> bool:
        """Whether the name says what it is."""
        return self.name.casefold() not in UNKNOWN


def hardware_of(result: Result) -> Hardware:
    """The hardware of a result; "unknown device" where no phase came so far as to say."""
    backend, cores = result.backend, result.environment.get("cpu_physical_cores")
    if backend is None:
        return Hardware(result.device, "unknown device", 1, None)
    device = backend.device
    if device.kind != "cpu" or type(cores) is not int or not 0 < cores < 10**6:
        cores = None
    return Hardware(device.kind, device.name, device.count, cores)


@dataclass(frozen=True)
class Ranks:
    """How many processes trained together, one a device.

    Attributes:
        size: how many; 1 where nothing was shared.
        scaling: "strong" where they shared the workload's batch, "weak" where each had that batch; empty for one.
        how: engine, transport and hosts that connected them; empty for one.
        engine: the engine alone.
    """

    size: int = 1
    scaling: str = ""
    how: str = ""
    engine: str = ""

    @property
    def words(self) -> str:
        """For labels: "4 ranks, weak"; empty for one."""
        return f"{self.size} ranks, {self.scaling}" if self.size > 1 else ""


def ranks_of(result: Result) -> Ranks:
    """The ranks of a result."""
    if (parallel := result.parallel) is None:
        return Ranks()
    hosts = f"{parallel.hosts} host{'s' * (parallel.hosts != 1)}" if parallel.hosts else None
    how = ", ".join(filter(None, (parallel.engine, parallel.transport, hosts)))
    return Ranks(parallel.world_size, parallel.scaling, how, parallel.engine or "")
