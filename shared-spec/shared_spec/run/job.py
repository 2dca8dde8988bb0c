"""What a phase process is handed, and the outcome that it leaves."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shared_spec import files
from shared_spec import ranks as shared_ranks
from shared_spec.machine import facts
from shared_spec.results.format import FailureKind

PARALLEL = ("conformance", "training", "convergence")
"""Phases that several ranks run together; the others measure one device."""
REPEATED = ("training", "latency", "inference")
"""Phases that the profile repeats, each time in a new process and with the next seed; convergence has its own count."""
WITH_MEMORY = (*REPEATED, "max_batch")
"""Phases whose process ends with a reading of its peak memory; convergence keeps its own over several processes."""


@dataclass(frozen=True)
class Job:
    """All that a phase process has to know; handed over as a JSON file.

    Attributes:
        spec: the whole spec as plain JSON values.
        batch_size: of the global batch.
        data: folder of the real files, or None for the synthetic stand-in.
        outcome: file that the process writes its outcome to.
        checkpoint: file that a full training keeps itself in.
        stop: whether a full training ends at the target or after all epochs.
        power_watts: what a wall meter showed, where the user read one.
        ranks: how many processes run the phase together; each is handed the same job.
        timeout: seconds of silence after which a rank is given up.
        started: when the process was started, by the system's monotonic clock.
    """

    phase: str
    repeat: int
    seed: int
    device: str
    engine: str
    precision: str
    profile: str
    batch_size: int
    spec: dict[str, Any]
    data: str | None
    worker_env: dict[str, str]
    outcome: str
    checkpoint: str
    stop: Literal["target", "epochs"] = "epochs"
    power_watts: float | None = None
    ranks: int = 1
    timeout: float = shared_ranks.DEFAULT_TIMEOUT
    started: float | None = None

    def write(self, path: Path) -> None:
        files.write(path, asdict(self))

    @staticmethod
    def read(path: Path) -> "Job":
        return Job(**files.read(path))


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as None: JSON has no such numbers, and a reader must not guess."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def failure(kind: FailureKind, reason: str) -> dict[str, Any]:
    """The part of an outcome that says that, and why, a phase failed."""
    nothing = {"startup": None, "backend": None, "measurements": None}
    return {"status": "failed", "failure": kind, "reason": facts.scrub(reason)[:4000], **nothing}


def outcome_of(job: Job, seconds: float, part: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a phase as it stands in the result (results.schema.json: phase); the parent adds the conditions."""
    head = {"phase": job.phase, "repeat": job.repeat, "seed": job.seed, "seconds": seconds, "conditions": None}
    return _finite({**head, "worker_env": facts.scrub(job.worker_env), **facts.scrub(part)})  # type: ignore[no-any-return]


EXIT_USER_ERROR = 3
"""Exit status of a phase process that cannot run at all here; its last line of stderr says why."""


PARENT_ENV = "DEIT_BENCH_PARENT"
"""Process id of the `run` that a rank belongs to."""


def rank_report(job: Job, rank: int) -> Path:
    """File in which a rank says why it failed."""
    return Path(job.outcome).with_suffix(f".rank-{rank}")
