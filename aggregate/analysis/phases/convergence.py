"""The phase that trains in full: time, energy and cost to the target accuracy and of all epochs."""

from collections.abc import Callable, Iterator

from aggregate.analysis import costs, energy, memory
from aggregate.analysis.metrics import FULL_TRAINING, Figure, Metric, absent, all_absent
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.phases.training import batch_contradictions
from aggregate.analysis.plausibility import A_TRAINING_STEP, ROUNDING, Problems
from shared_spec.results import reference
from shared_spec.results.format import Done, Result
from shared_spec.results.measurements import Convergence, Training

METRICS = (
    Metric("target_reached", "convergence", "Seeds that reached the target", "", 4,
           "trainings whose top-1 on all test images came to the spec's target, of those that ran to an end", "sum"),
    Metric("time_to_target", "convergence", "Time to target", "min", 4,
           "from before the first image is touched to the end of the evaluation that shows the target; compilation, "
           "evaluation and checkpoints are in it; the median of the seeds, one that misses counting as never"),
    Metric("target_crossing", "convergence", "Time to target, interpolated", "min", 4,
           "where a line between the evaluations around the target crosses it: of the same clock, at the ends of these "
           "evaluations"),
    Metric("epochs_to_target", "convergence", "Epochs to target", "", 4, "epochs trained at the evaluation that shows it"),
    Metric("epochs_to_crossing", "convergence", "Epochs to target, interpolated", "", 4, "as the time to it"),
    Metric("crossing_warm", "convergence", "  time without compiling", "min", 4,
           "the interpolated time to target without first steps and first inferences: what a start from warm caches "
           "comes near to"),
    Metric("training_to_target", "convergence", "  time of training alone", "min", 4,
           "time to target without evaluation, checkpoints and first steps"),
    Metric("evaluation_to_target", "convergence", "  of it evaluation", "min", 3, "all test images at every evaluation"),
    Metric("checkpoints_to_target", "convergence", "  of it checkpoints", "min", 3,
           "waiting for them: for the state to come to the host, not for the thread that writes it"),
    Metric("checkpoint_writing", "convergence", "  checkpoints written meanwhile", "min", 3,
           "what that thread took, all epochs"),
    Metric("first_steps", "convergence", "  of it first steps and inferences", "min", 3,
           "of each process, with compilation; whether it started with caches of compiled programs is said beside it"),
    Metric("energy_to_target", "convergence", "Energy to target", "kJ", 4, "same clock as the time to target",
           of_ranks="withheld"),
    Metric("top1_best", "convergence", "Top-1, best evaluation", "%", 4,
           "of all test images; chosen after the fact, on the images that it is read from"),
    Metric("top1_final", "convergence", "Top-1, last evaluation", "%", 4, "of all test images"),
    Metric("top1_reference", "convergence", "  above the reference", "points", 2,
           "top-1 of the last evaluation less the mean of the reference trainings; one that learned slower or faster than "
           "these say is flagged (95 % prediction interval)", warns=True),
    Metric("full_throughput", "convergence", "Whole training: throughput", "images/s", 4,
           "training images / seconds from the first image to the last evaluation, everything counted in"),
    Metric("full_throughput_training", "convergence", "  throughput of training alone", "images/s", 4,
           "the same without evaluation, checkpoints and first steps"),
    Metric("full_host_wait", "convergence", "Whole training: waiting for data", "%", 4,
           "part of those seconds with no batch ready"),
    Metric("full_memory", "convergence", "Whole training: peak memory", "GiB", 3, "as the peak memory of the training",
           of_ranks="rank 0"),
    Metric("full_energy", "convergence", "Whole training: energy", "kJ", 4, "up to the last evaluation",
           of_ranks="withheld"),
    Metric("whole_energy", "convergence", "  with processor and memory", "kJ", 4,
           "the meter's figure and those of the host's processor packages and memory: what comes nearest to what a Mac's "
           "meter covers", of_ranks="withheld"),
    Metric("cost_to_target", "convergence", "Rental to target", "", 3,
           "time to target * price of an hour of the machine that the price file has for this device; its electricity is "
           "in it", of_ranks="withheld"),
    Metric("cost_full", "convergence", "Rental, full training", "", 3, "the same over all epochs of the spec",
           of_ranks="withheld"),
    Metric("owning_to_target", "convergence", "Owning to target", "", 3,
           "time to target * purchase price, less what it sells for later, over all hours that the machine is used, by the "
           "price file or --machine-price; electricity comes on top", of_ranks="withheld"),
    Metric("owning_full", "convergence", "Owning, full training", "", 3, "the same over all epochs of the spec",
           of_ranks="withheld"),
    Metric("electricity_to_target", "convergence", "Electricity to target", "", 3,
           "energy to target * tariff, the price file's first or --tariff; of what the meter covers only",
           of_ranks="withheld"),
    Metric("electricity_full", "convergence", "Electricity, full training", "", 3, "the same over all epochs",
           of_ranks="withheld"),
)  # fmt: skip

TO_TARGET = ("time_to_target", "target_crossing", "epochs_to_target", "epochs_to_crossing", "crossing_warm",
             "training_to_target", "evaluation_to_target", "checkpoints_to_target")  # fmt: skip
"""Figures that a training which misses the target has not, and which count as beyond all others."""
SCORED = 10_000
"""Test images of CIFAR-100."""


def _derive(measured: Convergence, source: Source) -> Iterator[Figure]:
    seconds, n = measured.seconds, len(measured.evaluations)
    alone, notes = measured.training_seconds, _remarks(measured)
    yield Figure("target_reached", int(measured.reached), 1, notes=notes)
    yield from _to_target(measured, notes)
    first = measured.first_step_seconds + (measured.first_inference_seconds or 0.0)
    yield Figure("first_steps", first / 60, 1 + measured.resumed, notes=_caches(source.outcome))
    if (writing := measured.checkpoint_write_seconds) is None:
        yield absent("checkpoint_writing", "the training waited for it, before format 2.0")
    else:
        yield Figure("checkpoint_writing", writing / 60, n)
    yield Figure("top1_best", 100 * measured.best_top1, n)
    yield Figure("top1_final", 100 * measured.final_top1, n)
    yield _against_reference(measured, source)
    over = (f"over the {FULL_TRAINING}, everything counted in", *notes)
    yield Figure("headline_throughput", measured.images_per_second, n, notes=over, basis=FULL_TRAINING)
    yield Figure("full_throughput", measured.images_per_second, n, notes=notes)
    yield _positive("full_throughput_training", alone, lambda: measured.images / alone, n)
    yield Figure("full_host_wait", 100 * measured.host_wait_seconds / seconds, n)
    yield memory.peak("full_memory", measured.memory, source.result)
    if not source.result.measured(Training):
        yield memory.whole_peak("peak_memory", [measured.memory], FULL_TRAINING, source.result)
        yield memory.taken("machine_memory", [measured.memory], FULL_TRAINING, source.result)
    yield from _energy(measured)
    yield from costs.derive(measured, source)


def _against_reference(measured: Convergence, source: Source) -> Figure:
    spec, data = source.result.spec.content, source.result.data.source
    if not reference.applies(spec, data):
        return absent("top1_reference", "there are no reference trainings of this workload on this data")
    notes = tuple(reference.flags(measured, spec, data))
    if short := costs.cut_short(measured, source.result):
        return absent("top1_reference", "; ".join((short, *notes)))
    mean = reference.load_reference().final_top1.mean
    return Figure("top1_reference", 100 * (measured.final_top1 - mean), 1, notes=notes)


def _remarks(measured: Convergence) -> tuple[str, ...]:
    """What a reader must know beside the figures of a training."""
    notes = []
    if measured.resumed:
        times = f"{measured.resumed} time{'s' * (measured.resumed != 1)}"
        notes.append(f"resumed {times} after it had been ended; the time without a process is not counted")
    if measured.evaluations[-1].test_loss is None:
        notes.append(f"the loss was no longer finite after {measured.epochs:.3g} epochs")
    return tuple(notes)


def _caches(outcome: Done) -> tuple[str, ...]:
    """Whether the last process could start warm."""
    if outcome.startup is None or (cached := outcome.startup.cached_programs) is None:
        return ()
    return (
        f"warm start: {cached:,} files in caches of compiled programs" if cached else "cold start: no cache was there",
    )


def _positive(metric: str, divisor: float, value: Callable[[], float], n: int) -> Figure:
    if divisor > 0:
        return Figure(metric, value(), n)
    return absent(metric, "evaluation, checkpoints and first steps took all of the time", n)


def _to_target(measured: Convergence, notes: tuple[str, ...]) -> Iterator[Figure]:
    reached, crossing = measured.at_target, measured.crossing
    if reached is None or crossing is None:
        yield from all_absent(TO_TARGET, costs.missed(measured), never=True)
        return
    first = measured.first_step_seconds
    alone = reached.seconds - reached.evaluation_seconds - reached.checkpoint_seconds - first
    compiling = first if reached.first_seconds is None else reached.first_seconds
    n = measured.evaluations.index(reached) + 1
    yield Figure("time_to_target", reached.seconds / 60, n, notes=notes)
    yield Figure("target_crossing", crossing.seconds / 60, n, notes=notes)
    yield Figure("epochs_to_target", reached.step / measured.steps_per_epoch, n)
    yield Figure("epochs_to_crossing", crossing.steps / measured.steps_per_epoch, n)
    warm = crossing.seconds - compiling
    yield _positive("crossing_warm", warm, lambda: warm / 60, n)
    yield _positive("training_to_target", alone, lambda: alone / 60, n)
    yield Figure("evaluation_to_target", reached.evaluation_seconds / 60, n)
    yield Figure("checkpoints_to_target", reached.checkpoint_seconds / 60, n)


def _energy(measured: Convergence) -> Iterator[Figure]:
    if (reached := measured.at_target) is None:
        yield absent("energy_to_target", costs.missed(measured), never=True)
    else:
        yield energy.figure("energy_to_target", _kilojoules(reached.joules), measured.energy)
    yield energy.figure("full_energy", _kilojoules(measured.energy.joules), measured.energy)
    total, covers, parts = energy.whole(measured.energy)
    if total is None:
        yield absent("whole_energy", covers)
    else:
        yield Figure("whole_energy", total / 1e3, measured.energy.samples, notes=(covers, *parts), basis=covers)


def _kilojoules(joules: float | None) -> float | None:
    return None if joules is None else joules / 1e3


def _contradictions(measured: Convergence, here: str, result: Result) -> Problems:
    spec, batch = result.spec.content, measured.batch_size
    within = spec.evaluation_steps(batch) if spec.steps_per_epoch(batch) else ()
    expected = [epoch * spec.steps_per_epoch(batch) + step for epoch in range(spec.training.epochs) for step in within]
    steps = [row.step for row in measured.evaluations]
    if steps == expected[: len(steps)]:
        yield from _contradictions_of_clocks(measured, here)
        yield from energy.contradictions(measured.energy, measured.seconds, f"{here}/energy", result)
        yield from _contradictions_of_target(measured, here)
    else:
        yield f"{here}/evaluations", f"are not after the steps {', '.join(map(str, expected[:3]))} ... of the spec"
    yield from batch_contradictions(measured, here, result)
    yield from memory.contradictions(measured.memory, f"{here}/memory", result)
    yield from _not_as_specified(measured, here, result)
    yield from _miscounted(measured, here, result)


def _miscounted(measured: Convergence, here: str, result: Result) -> Problems:
    """Accuracies that the counts of the classes contradict."""
    if (images := measured.class_images) is None:
        return
    if sum(images) != result.spec.content.data.test_images:
        yield (
            f"{here}/class_images",
            f"add up to {sum(images)}, not to the {result.spec.content.data.test_images} of the spec",
        )
    for i, row in enumerate(measured.evaluations):
        if (right := row.class_right) is None:
            continue
        if len(right) != len(images) or any(r > n for r, n in zip(right, images, strict=False)):
            yield f"{here}/evaluations/{i}/class_right", "does not fit the number of images of each class"
        elif abs(sum(right) / max(sum(images), 1) - row.top1) > 1e-9:
            yield (
                f"{here}/evaluations/{i}/top1",
                f"is {row.top1:g}, but the classes' counts make {sum(right) / max(sum(images), 1):g}",
            )


def _contradictions_of_clocks(measured: Convergence, here: str) -> Problems:
    rows = measured.evaluations
    clocks = {
        "seconds": (measured.seconds, [row.seconds for row in rows]),
        "evaluation_seconds": (measured.evaluation_seconds, [row.evaluation_seconds for row in rows]),
        "checkpoint_seconds": (measured.checkpoint_seconds, [row.checkpoint_seconds for row in rows]),
    }
    for name, (whole, times) in clocks.items():
        if times != sorted(times):
            yield f"{here}/evaluations", f"have {name} that run backwards"
        if whole != times[-1]:
            yield f"{here}/{name}", f"is {whole:g}, but the last evaluation says {times[-1]:g}"
    if (all_joules := measured.energy.joules) != (last := rows[-1].joules):
        yield f"{here}/energy/joules", f"is {all_joules}, but the last evaluation says {last}"
    joules = [row.joules for row in rows if row.joules is not None]
    if joules != sorted(joules):
        yield f"{here}/evaluations", "have joules that run backwards"
    parts = {
        "evaluation_seconds": measured.evaluation_seconds,
        "checkpoint_seconds": measured.checkpoint_seconds,
        "first_step_seconds": measured.first_step_seconds,
        "first_inference_seconds": measured.first_inference_seconds or 0.0,
        "host_wait_seconds": measured.host_wait_seconds,
    }
    for name, part in parts.items():
        if part > ROUNDING * measured.seconds:
            yield f"{here}/{name}", f"is {part:g}, but the whole training took {measured.seconds:g}"


def _contradictions_of_target(measured: Convergence, here: str) -> Problems:
    """Whether the target was reached when, and only when, the accuracies say so."""
    first = measured.at_target
    epochs, seconds = (first.step / measured.steps_per_epoch, first.seconds) if first else (None, None)
    if (said := measured.epochs_to_target) is None or epochs is None:
        agree = said is None and epochs is None
    else:
        agree = abs(said - epochs) < 1e-6
    if not agree:
        yield f"{here}/epochs_to_target", f"is {said}, but the accuracies say {epochs}"
    if measured.seconds_to_target != seconds:
        yield f"{here}/seconds_to_target", f"is {measured.seconds_to_target}, but the evaluations say {seconds}"


def _not_as_specified(measured: Convergence, here: str, result: Result) -> Problems:
    training = result.spec.content.training
    if measured.target_top1 != training.target_top1:
        yield f"{here}/target_top1", f"is {measured.target_top1}, but the spec says {training.target_top1}"
    batch, done = measured.batch_size, measured.evaluations[-1].step
    if measured.steps_per_epoch != (steps := result.spec.content.steps_per_epoch(batch)):
        yield f"{here}/steps_per_epoch", f"is {measured.steps_per_epoch:,}, but at batch {batch} there are {steps:,}"
    if measured.images != (images := done * batch):
        yield f"{here}/images", f"is {measured.images:,}, but {done:,} steps of {batch} are {images:,}"
    for i, row in enumerate(measured.evaluations):
        if not any(_whole(row.top1 * count) for count in {SCORED, result.spec.content.data.test_images}):
            yield f"{here}/evaluations/{i}/top1", f"is {row.top1}, which is not a number of test images"


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6


def _seconds(measured: Convergence) -> float:
    return 0.0 if measured.resumed else measured.seconds  # a resumed training is of several processes


def _work(measured: Convergence, result: Result) -> Iterator[Work]:
    if (alone := measured.training_seconds) > 0:
        yield Work(A_TRAINING_STEP, "seconds", alone * measured.batch_size / measured.images)


PHASE = Phase("convergence", METRICS, _derive, _contradictions, _seconds, work=_work, seeded=True)
