"""What the user asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared_spec.platform import Platform
from shared_spec.run.job import Setting
from shared_spec.run.phases import Phase

Scaling = Literal["strong", "weak"]


DEFAULT_TIME_LIMIT = 10.0


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        data: --data as given; None looks in the usual places, "synthetic" asks for the stand-in.
        phases: the phases to run, in order.
        out: folder of the result.
        fresh: throw away what an unfinished run of the same kind left.
        largest_batch: no larger batch is tried.
        memory_share: part of the physical memory that a try may take where the device has none of its own.
        keep_weights: leave the final weights of each full training beside the result.
        time_limit: how many times its estimate a phase may take; 0: as long as it likes.
        emulated: bf16 is wanted even where it is emulated.
        scaling: what grows with the number of ranks: nothing ("strong") or the global batch ("weak").
    """

    platform: Platform
    setting: Setting
    phases: tuple[Phase, ...]
    out: Path
    data: str | None = None
    fresh: bool = False
    largest_batch: int = 65536
    memory_share: float = 0.7
    keep_weights: bool = False
    scaling: Scaling = "strong"
    time_limit: float = DEFAULT_TIME_LIMIT
    emulated: bool = False

    @property
    def batch_size(self) -> int:
        """Of the global batch: what the spec says, for each rank where the scaling is weak."""
        return self.setting.spec.training.batch_size * (self.setting.ranks if self.scaling == "weak" else 1)

    @property
    def planned_phases(self) -> tuple[Phase, ...]:
        """The phases that can be run: with several ranks, those that they share, and the rate of one device."""
        if self.setting.ranks == 1:
            return self.phases
        return tuple(phase for phase in self.phases if phase.ranks is not None)
