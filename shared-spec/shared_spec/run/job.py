"""What a phase process is handed, and the outcome that it leaves."""

import errno
import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from shared_spec import files
from shared_spec import ranks as shared_ranks
from shared_spec.errors import UserError
from shared_spec.machine import topology
from shared_spec.machine.energy import wall
from shared_spec.machine.energy.wall import WallPower
from shared_spec.measure.clock import utc_now, utc_text
from shared_spec.platform import Threads
from shared_spec.ranks import World
from shared_spec.results import privacy
from shared_spec.results.format import FailureKind
from shared_spec.results.measurements import Stop
from shared_spec.workload.spec import Profile, Spec, parse_spec

EXIT_USER_ERROR = 3
"""Exit status of a phase process that cannot run at all here; its last line of stderr says why."""

RESERVE = "reserve"
"""File that keeps room for outcomes on a disk that others fill."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CoreKind = Literal["performance", "all"]

PARENT_ENV = "DEIT_BENCH_PARENT"
"""Process id of the `run` that a rank belongs to."""


@dataclass(frozen=True)
class Setting:
    """What a request and each of its phase processes have in common.

    Attributes:
        stop: whether a full training ends at the target or after all epochs.
        power_watts: what --power-watts says of a wall meter, where the user has one.
        ranks: how many processes train together.
        cores: which kind of cores a CPU run is for, "performance" or "all" ("performance" is all where they are alike).
        threads: compute threads of each process on a CPU, where the user chose.
        rank_timeout: seconds of silence after which a rank is given up.
        seeds: full trainings, each with the next seed, where the user chose; None: as many as the profile says.
    """

    spec: Spec
    profile_name: str
    device: str
    engine: str
    precision: str
    stop: Stop = "epochs"
    power_watts: str | None = None
    ranks: int = 1
    cores: CoreKind = "performance"
    threads: int | None = None
    rank_timeout: float = shared_ranks.DEFAULT_TIMEOUT
    seeds: int | None = None

    @property
    def wall_power(self) -> WallPower | None:
        """What a wall meter shows; None where there is none."""
        return None if self.power_watts is None else wall.parse(self.power_watts)

    @property
    def profile(self) -> Profile:
        profile = self.spec.profile(self.profile_name)
        return profile if self.seeds is None else profile.changed(convergence_repeats=self.seeds)

    def compute_threads(self, world: World = World()) -> Threads:  # noqa: B008  (it cannot be changed)
        """The compute threads of each process.

        Args:
            world: where this process is one of the ranks, which may be on other hosts too.

        Raises:
            UserError: more are asked for than this machine runs.
        """
        here = world.local_size if 1 < world.size == self.ranks else self.ranks
        return topology.threads(here, self.cores, self.threads)

    def take_cores(self, part: int, parts: int) -> None:
        """Keep this process to its part of the cores that the run is for: on a GPU, of all."""
        if self.device == "cpu":
            topology.take_core_share(part, parts, self.cores, self.threads)
        else:
            topology.take_core_share(part, parts)


@dataclass(frozen=True)
class OutcomeFile:
    """Where a phase leaves its outcome; the name tells whether it ended well, so that nobody has to read it to know.

    Attributes:
        path: of an outcome that ended well; one that failed lies beside it.
    """

    path: Path

    @property
    def failed(self) -> Path:
        return self.path.with_suffix(".failed.json")

    @property
    def status(self) -> Literal["ok", "failed"] | None:
        """How the phase ended; None where it has left nothing."""
        if self.path.exists():
            return "ok"
        return "failed" if self.failed.exists() else None

    def is_whole(self) -> bool:
        """Whether an outcome of a phase that ended well is there and can be read; one that cannot is removed."""
        if self.status != "ok":
            return False
        try:
            return isinstance(self.read(), dict)
        except UserError:
            self.remove()
            return False

    def read(self) -> dict[str, Any]:
        """The outcome of a phase that has ended, well or not."""
        outcome: dict[str, Any] = files.read(self.path if self.status == "ok" else self.failed)
        return outcome

    def write(self, outcome: dict[str, Any]) -> None:
        """Write the outcome, atomically, in place of any other."""
        well = outcome["status"] == "ok"
        path = self.path if well else self.failed
        try:
            files.write(path, outcome)
        except OSError as error:
            if error.errno not in DISK_FULL or not self._give_up_reserve():
                raise
            files.write(path, outcome)
        (self.failed if well else self.path).unlink(missing_ok=True)

    def _give_up_reserve(self) -> bool:
        """Make room on a full disk; whether there was any left to make."""
        for folder in (self.path.parent, self.path.parent.parent):
            if (folder / RESERVE).exists():
                (folder / RESERVE).unlink()
                return True
        return False

    def remove(self) -> None:
        """Forget the outcome."""
        self.path.unlink(missing_ok=True)
        self.failed.unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """All that a phase process has to know; handed over as a JSON file.

    Attributes:
        setting: its `ranks` is how many processes run this phase together; each is handed the same job.
        batch_size: of the global batch.
        data: folder of the real files, or None for the synthetic stand-in.
        checkpoint: file that a full training keeps itself in.
        machine: what tells this machine from others (results: Ran).
        started: when the process was started, by the one clock.
        early_end_seconds: after so many from its start the phase ends with what it has; None: it takes its time.
        whole_window: a try of a batch size lasts as long as a window and evaluates; else it is a few steps.
    """

    phase: str
    repeat: int
    seed: int
    setting: Setting
    batch_size: int
    data: Path | None
    worker_env: dict[str, str]
    outcome: OutcomeFile
    checkpoint: Path
    machine: str
    started: float | None = None
    early_end_seconds: float | None = None
    whole_window: bool = False

    @property
    def file(self) -> Path:
        """File that the job itself is handed over in."""
        return self.outcome.path.with_suffix(".job")

    @property
    def log(self) -> Path:
        """File of all that the phase process writes to stdout and stderr."""
        return self.outcome.path.with_suffix(".log")

    def rank_report(self, rank: int) -> Path:
        """File in which a rank says why it failed."""
        return self.outcome.path.with_suffix(f".rank-{rank}")

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON values."""
        content = asdict(self)
        content["setting"]["spec"] = self.setting.spec.to_dict()
        content |= {"outcome": str(self.outcome.path), "checkpoint": str(self.checkpoint)}
        return content | {"data": None if self.data is None else str(self.data)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The job that `to_json` has made plain."""
        spec = parse_spec(content["setting"]["spec"], "the spec of this run")
        typed = {
            "setting": Setting(**{**content["setting"], "spec": spec}),
            "data": None if content["data"] is None else Path(content["data"]),
            "outcome": OutcomeFile(Path(content["outcome"])),
            "checkpoint": Path(content["checkpoint"]),
        }
        return cls(**{**content, **typed})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The job that a process is handed in a file."""
        return cls.from_json(files.read(path))

    def write(self) -> None:
        """Write the job into `file`, atomically."""
        files.write(self.file, self.to_json())

    def keep(self, part: dict[str, Any], seconds: float) -> None:
        """Write the outcome of a phase that took so long.

        Args:
            part: of a phase that has ended well, or what `Failure.part` returns; `ran` may be among it where other
                processes had a part in it.
        """
        self.outcome.write(outcome_of(self, seconds, part))

    def forget(self) -> None:
        """Remove what an earlier try of this phase has left."""
        self.outcome.remove()
        for rank in range(self.setting.ranks):
            self.rank_report(rank).unlink(missing_ok=True)


class Failure(NamedTuple):
    """Why a phase failed: the kind, for programs, and the reason in words."""

    kind: FailureKind
    reason: str

    def part(self) -> dict[str, Any]:
        """The part of an outcome that says so."""
        nothing = {"startup": None, "backend": None, "measurements": None}
        return {"status": "failed", "failure": self.kind, "reason": privacy.scrub(self.reason)[:4000], **nothing}


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as None: JSON has no such numbers, and a reader must not guess."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def ran(job: Job, seconds: float) -> dict[str, Any]:
    """When and where a process ran that ends now."""
    now = utc_now()
    return {"began": utc_text(now - timedelta(seconds=seconds)), "ended": utc_text(now), "machine": job.machine}


def outcome_of(job: Job, seconds: float, part: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a phase as it stands in the result (results.schema.json: phase); the parent adds the conditions."""
    head = {"phase": job.phase, "repeat": job.repeat, "seed": job.seed, "seconds": seconds, "conditions": None}
    head["ran"] = [ran(job, seconds)]
    return _finite({**head, "worker_env": privacy.scrub(job.worker_env), **privacy.scrub(part)})  # type: ignore[no-any-return]
