"""The result format: a run, its outcomes and what they were measured on, as types; checking, building and writing them.

results.schema.json is made from these types (`python -m shared_spec.dev.schemas`). History of the version: 1.0 the
first; 1.1 adds fields that are null where 1.0 had not measured them; 1.2 adds the kind of a failure and the names of
the memory figures that stand for the peak. In 2.0 a full training has evaluations instead of epochs, every outcome says
when and on which machine it ran, and a result what is missing in it. Older results are read through upgrade.py.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.results.measurements import (
    Ceiling,
    Conformance,
    Convergence,
    Inference,
    Latency,
    MaxBatch,
    Measurements,
    Training,
    TryMeasurements,
)
from shared_spec.results.quantities import Check, Count, Memory, Name, NonNegative, Seconds, Sha256, Text, Whole
from shared_spec.schema import ARRAY, TAG, Finite, Model, Problem
from shared_spec.workload.spec import PHASES, PhaseName, Precision, Profile, ProfileName, Seed, Spec

SCHEMA_VERSION = "2.0"

FailureKind = Literal["out_of_memory", "too_slow", "watchdog", "killed", "ranks", "fault"]
"""Memory ran out; a limit of time was passed; the system stopped the device's work for taking too long; the process was
killed; ranks died, hung or came apart; anything else."""


def _in_one_message(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Say once what a fact may be, instead of once for each of the types that it is not."""
    try:
        return check(value)
    except ValidationError:
        raise PydanticCustomError(
            "fact", "is neither a number, true, false, null, a text of up to 4,000 characters, nor up to 64 of those"
        ) from None


Scalar = bool | Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | Finite | Text
Fact = Annotated[
    Scalar | Annotated[tuple[Scalar, ...], ARRAY, Field(max_length=64)] | None, WrapValidator(_in_one_message)
]
Facts = TypeAliasType("Facts", Annotated[dict[str, Fact], Field(max_length=200)])
"""Facts by name."""


class Device(Model):
    kind: Name
    name: Name
    count: Count


class EffectivePrecision(Model):
    """What was asked for, and what the framework says it really computes in."""

    requested: Precision
    effective: Text


class Backend(Model):
    """What really ran, as the framework tells it."""

    framework: Name
    framework_version: Name
    engine: Name
    device: Device
    compile_mode: Text
    precision: EffectivePrecision
    details: Facts


Utc = Annotated[str, Field(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z$(?!\n)")]


class Ran(Model):
    """When and where a process of a phase ran."""

    began: Utc
    ended: Utc = Field(description="... or last left a checkpoint that another process went on from")
    machine: str = Field(
        pattern=r"^[0-9a-f]{16}$(?!\n)",
        description="Hash of what tells this machine from others, salted for each results folder: equal for the same "
        "machine, and nothing but that",
    )


class Startup(Model):
    """From the start of a phase's process to its first step."""

    process_seconds: Seconds | None = Field(description="Interpreter and harness")
    backend_seconds: Seconds = Field(description="Framework imported, model built")
    preparation_seconds: Seconds | None = Field(
        description="Data read, weights loaded; null where there is none or the phase's own clock has it in"
    )
    cached_programs: Whole | None = Field(
        description="Files in the framework's and the driver's caches of compiled programs before the framework was "
        "imported: 0 is a cold start. null where none is known to be kept, and before 2.0"
    )


class Outcome(Model):
    """What became of a phase, or of one repeat of it: the fields that all outcomes have."""

    phase: PhaseName
    repeat: int = Field(ge=0, le=100_000)
    seed: Seed
    seconds: Seconds = Field(description="Whole life of the phase process")
    ran: Annotated[tuple[Ran, ...], ARRAY, Field(min_length=1, max_length=100_000)] | None = Field(
        description="When and on which machine, one for each process whose work is in the measurements; null before 2.0"
    )
    startup: Startup | None = Field(description="null where the phase failed or is many processes, and before 1.1")
    conditions: Facts | None = Field(
        description="The machine while the phase ran: cpu_foreign_share and cpu_stolen_share (of all cores' time, taken "
        "by processes of others and by the host of a virtual machine), cpu_throttle_events, swap_grown_bytes; on an "
        "NVIDIA GPU, from a look every five seconds, gpu_looks, gpu_temperature_celsius_max, gpu_power_watts_max, "
        "gpu_sm_clock_mhz_min and _max and gpu_throttle_reasons while it was loaded, gpu_foreign_processes. null where "
        "nobody watched, and before 1.1"
    )
    worker_env: dict[str, Text] = Field(
        max_length=100, description="Variables the phase process was started with on the platform's behalf"
    )


class Failed(Outcome):
    """A phase that failed."""

    status: Literal["failed"]
    failure: FailureKind = Field(description="Of which kind the failure is")
    reason: str = Field(min_length=1, max_length=4000, description="Why it failed, in words")
    backend: Backend | None
    measurements: None


class Done(Outcome):
    """A phase that came to its end."""

    status: Literal["ok"]
    failure: None
    reason: None
    backend: Backend


class ConformanceDone(Done):
    phase: Literal["conformance"]
    measurements: Conformance


class CeilingDone(Done):
    phase: Literal["ceiling"]
    measurements: Ceiling


class TrainingDone(Done):
    phase: Literal["training"]
    measurements: Training


class LatencyDone(Done):
    phase: Literal["latency"]
    measurements: Latency


class InferenceDone(Done):
    phase: Literal["inference"]
    measurements: Inference


class MaxBatchDone(Done):
    phase: Literal["max_batch"]
    measurements: MaxBatch


class ConvergenceDone(Done):
    phase: Literal["convergence"]
    measurements: Convergence


class TryDone(Done):
    """One try of the search for the largest batch; it has a process of its own, and is part of MaxBatchDone."""

    phase: Literal["max_batch"]
    measurements: TryMeasurements


FAILED = f"{TAG}failed"


def _which(outcome: Any) -> str:
    """Tag of the type that an outcome is to be checked against; of no known phase, any will object."""
    if isinstance(outcome, Outcome):
        return FAILED if isinstance(outcome, Failed) else f"{TAG}{outcome.phase}"
    phase = outcome.get("phase") if isinstance(outcome, dict) else None
    if isinstance(phase, str) and phase in PHASES and outcome.get("status") != "failed":
        return f"{TAG}{phase}"
    return FAILED


AnyOutcome = Annotated[
    Annotated[Failed, Tag(FAILED)]
    | Annotated[ConformanceDone, Tag(f"{TAG}conformance")]
    | Annotated[CeilingDone, Tag(f"{TAG}ceiling")]
    | Annotated[TrainingDone, Tag(f"{TAG}training")]
    | Annotated[LatencyDone, Tag(f"{TAG}latency")]
    | Annotated[InferenceDone, Tag(f"{TAG}inference")]
    | Annotated[MaxBatchDone, Tag(f"{TAG}max_batch")]
    | Annotated[ConvergenceDone, Tag(f"{TAG}convergence")],
    Discriminator(_which),
]


class Parallel(Model):
    """Data-parallel training: conformance, training and convergence were run by several ranks, one a device.

    They share the global batch: in strong scaling the spec's, in weak scaling world_size times that. What connected
    them is null where no shared phase ended well.
    """

    world_size: int = Field(ge=2, le=100_000)
    scaling: Literal["strong", "weak"]
    engine: Name | None
    transport: Name | None
    hosts: Count | None


class CpuThreads(Model):
    """How many threads compute on a CPU, and on which of its kinds of cores."""

    cores: Literal["performance", "all"] = Field(
        description="Which were chosen; performance means all of them where they are of one kind"
    )
    asked: Count | None = Field(description="--threads; null where the machine decided")
    count: Count = Field(description="Threads of each process")


class UsedProfile(Model):
    name: ProfileName
    content: Profile


class UsedSpec(Model):
    name: Name
    fingerprint: Sha256
    standard: bool = Field(description="Whether this is the workload of the package's own spec.json")
    content: Spec = Field(description="The whole spec")


class UsedData(Model):
    source: Literal["cifar-100", "synthetic"]
    checksums: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{32,64}$(?!\n)")]] = Field(max_length=16)


class InitialParams(Model):
    seed: Whole
    fingerprint: Sha256
    count: Count


class Software(Model):
    shared_spec: Name
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$(?!\n)")] | None
    git_clean: bool | None
    python: Name
    packages: dict[str, Name] = Field(max_length=1000)


class Missing(Model):
    """A process that a run was to have."""

    phase: PhaseName
    repeat: int = Field(ge=0, le=100_000)
    seed: Seed


M = TypeVar("M", bound=Measurements)


class Result(Model):
    """One run of one platform.

    All times are in seconds, all sizes in bytes, energies in joules, unless the name says otherwise.
    """

    schema_version: Literal["2.0"]
    run_id: str = Field(pattern=r"^[a-z0-9]{12,64}$(?!\n)")
    created: Utc = Field(description="UTC time of the start")
    platform: Literal["mlx", "tf-cuda", "torch-ipex"]
    engine: Name
    device: Name
    precision: Precision
    parallel: Parallel | None = Field(description="null for one process")
    cpu_threads: CpuThreads | None = Field(description="null on a GPU, and before 1.2")
    profile: UsedProfile
    spec: UsedSpec
    data: UsedData
    initial_params: InitialParams
    software: Software
    environment: Facts = Field(description="Facts of the machine that a run does not change")
    state_before: Facts = Field(description="Load, temperatures, clocks, throttling before the first phase")
    state_after: Facts = Field(description="The same after the last phase")
    resumed: Whole = Field(description="How often the run was taken up again after it had died")
    missing: Annotated[tuple[Missing, ...], ARRAY, Field(max_length=10_000)] | None = Field(
        description="What was to be run and had not ended when this was written: empty for a whole run, which repeats "
        "after the profile's least number are no part of; null before 2.0"
    )
    wide_intervals: dict[PhaseName, NonNegative] | None = Field(
        description="Width of the 95 % interval of the mean of a phase's repeats, as a fraction of it, where they ended "
        "and it was wider than measuring.interval_tolerance; null before 2.0"
    )
    warnings: Annotated[tuple[Text, ...], ARRAY, Field(max_length=1000)]
    headline_memory: Annotated[tuple[Name, ...], ARRAY, Field(min_length=1, max_length=50)] = Field(
        description="Names of memory figures; the first of them that was measured is the peak that stands for a phase"
    )
    phases: Annotated[tuple[AnyOutcome, ...], ARRAY, Field(max_length=10_000)]

    def measured(self, kind: type[M]) -> list[M]:
        """What the successful outcomes of one phase measured, one per repeat."""
        return [outcome.measurements for outcome in self.phases if isinstance(outcome.measurements, kind)]

    def failed_checks(self) -> list[tuple[PhaseName, Check]]:
        """Checks of what was timed that were not passed, and their phases."""
        done = [outcome for outcome in self.phases if isinstance(outcome, Done)]
        timed = [outcome for outcome in done if outcome.phase != "conformance"]
        return [(one.phase, check) for one in timed for check in one.measurements.failed_checks]

    def peak_memory(self, memory: Memory) -> tuple[str, int] | None:
        """Name and bytes of the peak that stands for a phase; None where none of headline_memory was measured."""
        return next(((name, peak) for name in self.headline_memory if (peak := memory.get(name)) is not None), None)

    @property
    def backend(self) -> Backend | None:
        """What the framework said of itself; None where no phase came so far."""
        return next((outcome.backend for outcome in self.phases if outcome.backend), None)

    @property
    def file_stem(self) -> str:
        """Name of its file, without suffix: what ran, then when."""
        stamp = self.created.replace("-", "").replace(":", "")
        return "-".join((self.platform, self.engine, self.device, self.precision, self.profile.name, stamp))


_OUTCOME: TypeAdapter[AnyOutcome] = TypeAdapter(AnyOutcome)


def parse_outcome(content: Any) -> AnyOutcome:
    """What a phase process of this program has left."""
    return _OUTCOME.validate_python(content)


def parse(content: Any) -> Result:
    """A result of this version, of parsed JSON.

    Raises:
        schema.Invalid: it is none; the exception has all problems.
    """
    return schema.parse(Result, content)


def problems(content: Any) -> list[Problem]:
    """All that is wrong with a result in parsed JSON, as (JSON pointer, what); empty for a valid one."""
    try:
        parse(content)
    except schema.Invalid as invalid:
        return invalid.problems
    return []


def write(result: Result, folder: Path, suffix: str = ".json") -> Path:
    """Write `result` into `folder` atomically, and return its path; the suffix ".json.gz" packs it.

    An earlier state of the same run is replaced. Another run's result never is: this one gets a longer name then.
    """
    for stem in (result.file_stem, f"{result.file_stem}-{result.run_id[:8]}", f"{result.file_stem}-{result.run_id}"):
        path = folder / f"{stem}{suffix}"
        if files.write_new(path, result.to_dict()):
            return path
        if _run_id(path) == result.run_id:
            files.write(path, result.to_dict())
            return path
    raise UserError(f"{path}: is there already and is not this run's; move it away and run the same command again.")


def _run_id(path: Path) -> str | None:
    """Of the run whose result lies at `path`; None where that is no result."""
    try:
        content = files.read(path)
    except UserError:
        return None
    run_id = content.get("run_id") if isinstance(content, dict) else None
    return run_id if isinstance(run_id, str) else None
