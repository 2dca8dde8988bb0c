"""The phases of a run: what each one is stands here and nowhere else.

A new phase is a measuring function in measure/, its measurements in results/format.py, and an entry of PHASES.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from shared_spec.conformance.checks import run_checks
from shared_spec.measure import inference, matmul_peak, training
from shared_spec.measure.clock import monotonic
from shared_spec.measure.convergence import Convergence
from shared_spec.results import verdicts
from shared_spec.results.measurements import Ceiling, Conformance, Latency, Measurements, Training, TryMeasurements
from shared_spec.results.quantities import IdleEnergy
from shared_spec.run import proof
from shared_spec.run.context import Context, idle_meter_of, metered, open_meter_of
from shared_spec.run.job import Job
from shared_spec.run.pace import Pace
from shared_spec.run.proof import Proof
from shared_spec.workload.spec import Profile, Spec

UNMETERED_SECONDS = 0.1
"""Length of the idle window where no meter is there to say anything of it."""
Measured = Measurements | TryMeasurements
"""What a phase process has measured."""


def once(profile: Profile) -> int:
    """One process, whatever the profile says."""
    return 1


def repeats(profile: Profile) -> int:
    """As often as the profile repeats training and latency."""
    return profile.repeats


def inference_repeats(profile: Profile) -> int:
    """As often as the profile repeats inference."""
    return profile.inference_repeats


def trainings(profile: Profile) -> int:
    """As often as the profile trains to the target."""
    return profile.convergence_repeats


@dataclass(frozen=True)
class Phase:
    """What a phase is.

    Attributes:
        name: as in the result.
        perform: measures, in a process of its own.
        estimate: seconds that a process of it takes, roughly.
        verdict: of its measurements: what was found and how sure it is, in a line for whoever watches.
        repeats: how many processes a profile asks for; each has the next seed. Neighbours in PHASES of which it asks
            for equally many take turns, so that slow drift hits all of them alike.
        ranks: who runs it where there are several ranks: all of them together, or one process; None: it is left out.
        with_memory: its process ends with a reading of its peak memory.
        search: what runs in a process is one try of one batch size, and the parent looks for the largest.
        figure: has to be known to within measuring.interval_tolerance, so that there may be more repeats.
        before: measures before the framework is imported.
        proof: checks of what was timed, made when nothing is timed any more.
        runs_to_its_end: it cannot end earlier with less, and is stopped at its limit of time alone.
        flops: floating-point operations per second that the phase has seen; better than a guess to plan with.
    """

    name: str
    perform: Callable[[Context], Measured]
    estimate: Callable[[Pace], float]
    verdict: Callable[[Any, Spec], str]
    repeats: Callable[[Profile], int] = once
    ranks: Literal["all", "one"] | None = None
    with_memory: bool = False
    search: bool = False
    figure: Callable[[Any], float] | None = None
    flops: Callable[[Any], float] | None = None
    before: Callable[[Job], IdleEnergy | None] | None = None
    proof: Proof | None = None
    runs_to_its_end: bool = False


def _conformance(context: Context) -> Measured:
    precision = context.job.setting.precision
    checks = run_checks(context.backend, context.spec, precision, context.progress)
    return Conformance(passed=all(check.passed for check in checks), checks=tuple(checks))


def _conformance_seconds(pace: Pace) -> float:
    return pace.start(programs=2.0) + 120 * pace.training_image + 15


def _ceiling(context: Context) -> Measured:
    return matmul_peak.measure_matmul_peak(context.backend, context.spec, context.profile, monotonic, context.progress)


def _matmul_peak(measured: Ceiling) -> float:
    return measured.matmul_peak


def _ceiling_seconds(pace: Pace) -> float:
    return pace.start() + 1.5 * pace.profile.ceiling_seconds + pace.proof()


def _idle_before(job: Job) -> IdleEnergy | None:
    """What the machine takes while nothing of the training is there; None where nothing meters it."""
    setting = job.setting
    meter = open_meter_of(setting)
    return (
        training.measure_idle(idle_meter_of(setting, meter), setting.profile.idle_seconds)
        if metered(setting, meter)
        else None
    )


def _training(context: Context) -> Measured:
    seconds = context.profile.idle_seconds if metered(context.job.setting, context.meter) else UNMETERED_SECONDS
    idle = training.measure_idle(context.idle_meter, seconds)
    with context.trainer() as trainer:
        return training.measure_training(
            trainer, context.profile, idle, context.meter, context.progress, context.idle_before
        )


def _images_per_second(measured: Training) -> float:
    return measured.images_per_second


def _training_seconds(pace: Pace) -> float:
    profile = pace.profile
    window = max(profile.window_min_steps * pace.step, profile.window_seconds)
    steps = pace.warmup_steps + profile.step_samples + 1  # the last is the proof's
    feeding, idle = max(pace.step, profile.window_seconds / 4), 2 * profile.idle_seconds
    return pace.start(programs=1.0) + steps * pace.step + window + feeding + idle + pace.proof()


def _of_inference(measure: Callable[..., Measured]) -> Callable[[Context], Measured]:
    """What performs a phase that one of measure/inference.py's functions measures."""

    def perform(context: Context) -> Measured:
        return measure(
            context.backend, context.test_images(), context.spec, context.profile, monotonic, context.progress,
            context.deadline, context.timed_calls.append,
        )  # fmt: skip

    return perform


def _latency_median(measured: Latency) -> float:
    return measured.latency_median


LATENCY_LOOKED_AT = 30
"""Inferences of the proof of latency: a handful of each kind, and the program anew with other parameters."""
INFERENCE_LOOKED_AT = 6
"""The same of each image of the batch sizes that were timed: two batches against batches of 4, then other parameters."""


def _latency_seconds(pace: Pace) -> float:
    profile = pace.profile
    samples = 2.5 * max(profile.latency_samples * pace.image, profile.latency_seconds)
    return pace.start(programs=0.25) + samples + pace.proof(images=LATENCY_LOOKED_AT, programs=0.25)


def _inference_seconds(pace: Pace) -> float:
    sizes = [1 << i for i in range(pace.profile.inference_max_batch.bit_length())]
    windows = (max(3 * pace.profile.inference_seconds, pace.warmup_steps * size * pace.image) for size in sizes)
    proof = pace.proof(images=INFERENCE_LOOKED_AT * sum(sizes), programs=0.25)
    return pace.start(programs=0.25 * len(sizes)) + sum(windows) + proof


def _max_batch(context: Context) -> Measured:
    """One try of one batch size; the search over them is the parent's."""
    profile, whole = context.profile, context.job.whole_window
    with context.trainer() as trainer:
        return training.measure_batch(
            trainer,
            profile.max_batch_steps,
            profile.window_seconds if whole else 0.0,
            context.evaluated_images if whole else None,
            context.progress,
        )


def _max_batch_seconds(pace: Pace) -> float:
    tries = 10 * (pace.start() + (2 + pace.profile.max_batch_steps) * 8 * pace.step)
    return pace.start(programs=12.0) + tries + pace.profile.window_seconds


def _convergence(context: Context) -> Measured:
    job = context.job
    training = Convergence(
        context.backend, context.spec, context.dataset, job.batch_size, job.seed, job.setting.stop,
        job.checkpoint, context.profile.checkpoint_seconds, context.meter,
        monotonic, context.progress, context.process_memory, job.machine,
    )  # fmt: skip
    measured = training.run()
    context.ran_before += training.record.ran[:-1]
    return measured


def _convergence_seconds(pace: Pace) -> float:
    spec = pace.spec
    evaluations = spec.training.evaluations_per_epoch * spec.data.test_images * pace.image
    epoch = spec.steps_per_epoch(spec.training.batch_size) * pace.step + evaluations
    return pace.start(programs=1.25) + spec.training.epochs * epoch + pace.proof()


CONFORMANCE = Phase(
    "conformance", _conformance, _conformance_seconds, verdicts.conformance, ranks="all", runs_to_its_end=True
)
CEILING = Phase(
    "ceiling", _ceiling, _ceiling_seconds, verdicts.ceiling,
    ranks="one", flops=_matmul_peak, runs_to_its_end=True, proof=proof.ceiling,
)  # fmt: skip
TRAINING = Phase(
    "training", _training, _training_seconds, verdicts.training,
    repeats=repeats, ranks="all", with_memory=True, figure=_images_per_second, before=_idle_before,
    proof=proof.training,
)  # fmt: skip
LATENCY = Phase(
    "latency", _of_inference(inference.measure_latency), _latency_seconds, verdicts.latency,
    repeats=repeats, with_memory=True, figure=_latency_median, proof=proof.inference,
)  # fmt: skip
INFERENCE = Phase(
    "inference", _of_inference(inference.measure_inference), _inference_seconds, verdicts.inference,
    repeats=inference_repeats, with_memory=True, proof=proof.inference,
)  # fmt: skip
MAX_BATCH = Phase(
    "max_batch", _max_batch, _max_batch_seconds, verdicts.max_batch, with_memory=True, search=True,
    runs_to_its_end=True, proof=proof.max_batch,
)  # fmt: skip
CONVERGENCE = Phase(
    "convergence", _convergence, _convergence_seconds, verdicts.convergence, repeats=trainings, ranks="all",
    runs_to_its_end=True, proof=proof.convergence,
)  # fmt: skip

PHASES = (CONFORMANCE, CEILING, TRAINING, LATENCY, INFERENCE, MAX_BATCH, CONVERGENCE)
"""All phases, in the order in which a run has them."""

BY_NAME = {phase.name: phase for phase in PHASES}


def chosen(names: Iterable[str]) -> tuple[Phase, ...]:
    """The phases of these names, in the order of PHASES.

    Raises:
        KeyError: a name is that of no phase.
    """
    wanted = {BY_NAME[name] for name in names}
    return tuple(phase for phase in PHASES if phase in wanted)
