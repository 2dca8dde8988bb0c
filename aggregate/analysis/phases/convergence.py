"""The phase that trains in full: time, energy and cost to the target accuracy and of all epochs."""

from collections.abc import Callable, Iterator

from aggregate.analysis import costs, energy, memory
from aggregate.analysis.metrics import Figure, Metric, absent, all_absent
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.phases.training import batch_contradictions
from aggregate.analysis.plausibility import A_TRAINING_STEP, ROUNDING, Problems
from shared_spec.results.format import Result
from shared_spec.results.measurements import Convergence

METRICS = (
    Metric("target_reached", "convergence", "Seeds that reached the target", "", 4,
           "trainings whose top-1 on all test images came to the spec's target, of those that ran to an end", "sum"),
    Metric("time_to_target", "convergence", "Time to target", "min", 4,
           "from before the first image is touched to the end of the evaluation that shows the target; compilation, "
           "evaluation and checkpoints are in it; the median of the seeds, one that misses counting as never"),
    Metric("epochs_to_target", "convergence", "Epochs to target", "", 4, "the same trainings"),
    Metric("training_to_target", "convergence", "  time of training alone", "min", 4,
           "time to target without evaluation, checkpoints and first steps"),
    Metric("evaluation_to_target", "convergence", "  of it evaluation", "min", 3, "all test images after every epoch"),
    Metric("checkpoints_to_target", "convergence", "  of it checkpoints", "min", 3, "writing weights and moments"),
    Metric("first_steps", "convergence", "  of it first steps", "min", 3, "first step of each process, with compilation"),
    Metric("energy_to_target", "convergence", "Energy to target", "kJ", 4, "same clock as the time to target",
           of_ranks="withheld"),
    Metric("top1_best", "convergence", "Top-1, best epoch", "%", 4, "of all test images"),
    Metric("top1_final", "convergence", "Top-1, last epoch", "%", 4, "of all test images"),
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

TO_TARGET = ("time_to_target", "epochs_to_target", "training_to_target", "evaluation_to_target",
             "checkpoints_to_target")  # fmt: skip
"""Figures that a training which misses the target has not, and which count as beyond all others."""
SCORED = 10_000
"""Test images of CIFAR-100."""


def _derive(measured: Convergence, source: Source) -> Iterator[Figure]:
    epochs, seconds = measured.epochs, measured.seconds
    n, alone, notes = len(epochs), measured.training_seconds, _remarks(measured)
    yield Figure("target_reached", int(measured.reached), 1, notes=notes)
    yield from _to_target(measured, notes)
    yield Figure("first_steps", measured.first_step_seconds / 60, 1 + measured.resumed)
    yield Figure("top1_best", 100 * measured.best_top1, n)
    yield Figure("top1_final", 100 * epochs[-1].top1, n)
    yield Figure("full_throughput", measured.images_per_second, n, notes=notes)
    yield _positive("full_throughput_training", alone, lambda: measured.images / alone, n)
    yield Figure("full_host_wait", 100 * measured.host_wait_seconds / seconds, n)
    yield memory.peak("full_memory", measured.memory, source.result)
    yield from _energy(measured)
    yield from costs.derive(measured, source)


def _remarks(measured: Convergence) -> tuple[str, ...]:
    """What a reader must know beside the figures of a training."""
    notes = []
    if measured.resumed:
        times = f"{measured.resumed} time{'s' * (measured.resumed != 1)}"
        notes.append(f"resumed {times} after it had been ended; the time without a process is not counted")
    if measured.epochs[-1].test_loss is None:
        notes.append(f"the loss was no longer finite after epoch {measured.epochs[-1].epoch}")
    return tuple(notes)


def _positive(metric: str, divisor: float, value: Callable[[], float], n: int) -> Figure:
    if divisor > 0:
        return Figure(metric, value(), n)
    return absent(metric, "evaluation, checkpoints and first steps took all of the time", n)


def _to_target(measured: Convergence, notes: tuple[str, ...]) -> Iterator[Figure]:
    if (epoch := costs.epoch_of_target(measured)) is None:
        yield from all_absent(TO_TARGET, costs.missed(measured), never=True)
        return
    alone = epoch.seconds - epoch.evaluation_seconds - epoch.checkpoint_seconds - measured.first_step_seconds
    n = epoch.epoch
    yield Figure("time_to_target", epoch.seconds / 60, n, notes=notes)
    yield Figure("epochs_to_target", n, n)
    yield _positive("training_to_target", alone, lambda: alone / 60, n)
    yield Figure("evaluation_to_target", epoch.evaluation_seconds / 60, n)
    yield Figure("checkpoints_to_target", epoch.checkpoint_seconds / 60, n)


def _energy(measured: Convergence) -> Iterator[Figure]:
    if (epoch := costs.epoch_of_target(measured)) is None:
        yield absent("energy_to_target", costs.missed(measured), never=True)
    else:
        yield energy.figure("energy_to_target", _kilojoules(epoch.joules), measured.energy)
    yield energy.figure("full_energy", _kilojoules(measured.energy.joules), measured.energy)


def _kilojoules(joules: float | None) -> float | None:
    return None if joules is None else joules / 1e3


def _contradictions(measured: Convergence, here: str, result: Result) -> Problems:
    epochs = measured.epochs
    if [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1)):
        yield from _contradictions_of_clocks(measured, here)
        yield from energy.contradictions(measured.energy, measured.seconds, f"{here}/energy", result)
        yield from _contradictions_of_target(measured, here)
    else:
        yield f"{here}/epochs", "are not numbered 1, 2, 3 ..."
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
    for i, epoch in enumerate(measured.epochs):
        if (right := epoch.class_right) is None:
            continue
        if len(right) != len(images) or any(r > n for r, n in zip(right, images, strict=False)):
            yield f"{here}/epochs/{i}/class_right", "does not fit the number of images of each class"
        elif abs(sum(right) / max(sum(images), 1) - epoch.top1) > 1e-9:
            yield (
                f"{here}/epochs/{i}/top1",
                f"is {epoch.top1:g}, but the classes' counts make {sum(right) / max(sum(images), 1):g}",
            )


def _contradictions_of_clocks(measured: Convergence, here: str) -> Problems:
    epochs = measured.epochs
    clocks = {
        "seconds": (measured.seconds, [epoch.seconds for epoch in epochs]),
        "evaluation_seconds": (measured.evaluation_seconds, [epoch.evaluation_seconds for epoch in epochs]),
        "checkpoint_seconds": (measured.checkpoint_seconds, [epoch.checkpoint_seconds for epoch in epochs]),
    }
    for name, (whole, times) in clocks.items():
        if times != sorted(times):
            yield f"{here}/epochs", f"have {name} that run backwards"
        if whole != times[-1]:
            yield f"{here}/{name}", f"is {whole:g}, but the last epoch says {times[-1]:g}"
    if (all_joules := measured.energy.joules) != (last := epochs[-1].joules):
        yield f"{here}/energy/joules", f"is {all_joules}, but the last epoch says {last}"
    joules = [epoch.joules for epoch in epochs if epoch.joules is not None]
    if joules != sorted(joules):
        yield f"{here}/epochs", "have joules that run backwards"
    parts = {
        "evaluation_seconds": measured.evaluation_seconds,
        "checkpoint_seconds": measured.checkpoint_seconds,
        "first_step_seconds": measured.first_step_seconds,
        "host_wait_seconds": measured.host_wait_seconds,
    }
    for name, part in parts.items():
        if part > ROUNDING * measured.seconds:
            yield f"{here}/{name}", f"is {part:g}, but the whole training took {measured.seconds:g}"


def _contradictions_of_target(measured: Convergence, here: str) -> Problems:
    """Whether the target was reached when, and only when, the accuracies say so."""
    first = next((epoch for epoch in measured.epochs if epoch.top1 >= measured.target_top1), None)
    number, seconds = (first.epoch, first.seconds) if first else (None, None)
    if measured.epochs_to_target != number:
        yield f"{here}/epochs_to_target", f"is {measured.epochs_to_target}, but the accuracies say {number}"
    if measured.seconds_to_target != seconds:
        yield f"{here}/seconds_to_target", f"is {measured.seconds_to_target}, but the epochs say {seconds}"


def _not_as_specified(measured: Convergence, here: str, result: Result) -> Problems:
    training = result.spec.content.training
    if measured.target_top1 != training.target_top1:
        yield f"{here}/target_top1", f"is {measured.target_top1}, but the spec says {training.target_top1}"
    if (done := len(measured.epochs)) > training.epochs:
        yield f"{here}/epochs", f"are {done}, but the spec says {training.epochs}"
    batch = measured.batch_size
    if measured.images != (images := done * result.spec.content.steps_per_epoch(batch) * batch):
        yield f"{here}/images", f"is {measured.images:,}, but {done} epochs are {images:,}"
    for i, epoch in enumerate(measured.epochs):
        if not any(_whole(epoch.top1 * count) for count in {SCORED, result.spec.content.data.test_images}):
            yield f"{here}/epochs/{i}/top1", f"is {epoch.top1}, which is not a number of test images"


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6


def _seconds(measured: Convergence) -> float:
    return 0.0 if measured.resumed else measured.seconds  # a resumed training is of several processes


def _work(measured: Convergence, result: Result) -> Iterator[Work]:
    if (alone := measured.training_seconds) > 0:
        yield Work(A_TRAINING_STEP, "seconds", alone * measured.batch_size / measured.images)


PHASE = Phase("convergence", METRICS, _derive, _contradictions, _seconds, work=_work)
