"""What could be true but hardly is: figures of a result that its own other figures, or what all machines share, speak against.

A contradiction keeps a result out of every table. A doubt stands beside it there, and keeps it from being published.
The factors are beyond all that the committed results show of honest runs, whose extremes stand with each.
"""

import datetime as dt
import statistics
from collections.abc import Iterator

import numpy as np

from aggregate.analysis import memory
from aggregate.analysis.plausibility import step_seconds, world_size
from aggregate.analysis.standard import is_standard, standard
from shared_spec.results.format import Done, Result
from shared_spec.results.measurements import Ceiling, Convergence, Inference, Latency, MaxBatch, Training
from shared_spec.results.quantities import Energy

FIRST_DAY = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
"""No result is older than its format."""
CLOCKS_DIFFER = dt.timedelta(days=1)
"""What two machines' clocks may differ by."""
BEYOND_CEILING = 2.5
"""Times the rate of square products that the model's may reach: single layers have made 1.7 times as many operations on a
CPU with AMX (docs/performance.md), and the whole model at most 0.81 times."""
FASTER_THAN_ITSELF = 2.5
"""Times as fast as the same steps elsewhere in the result that a window may be (at most 1.7 seen, against steps that each
wait for their end)."""
SMALLER_STEP = 2.5
"""Times as long that a smaller batch of inference may take (at most 1.35 seen, on a GPU that waits for its host)."""
INFERENCE_OF_TRAINING = (1.0, 15.0)
"""Images/s of inference by those of training at one batch: 3 by the operations, 2.9 to 5.9 seen."""
HOST_OF_WINDOW = 1.05
"""What the host did within a window, by the window."""
TOP1 = (0.142, 0.194, 0.252, 0.296, 0.327, 0.37, 0.398, 0.426, 0.445, 0.467, 0.473, 0.488, 0.492, 0.496, 0.495)
"""Accuracy after each epoch of the standard training: means of five trainings with MLX and TensorFlow in bf16."""
CHANCE = 0.01
"""Accuracy before the first step."""
TOP1_APART = 0.08
"""How far from it a training may be; those five were within 0.02."""


def doubts(result: Result, now: dt.datetime | None = None) -> list[str]:
    """Sentences on what in a result is hard to believe; `now` is the clock's where it is not given."""
    found = list(_dates(result, now or dt.datetime.now(dt.UTC)))
    if is_standard(result.spec.content):
        found += [
            *_beyond_ceiling(result),
            *_trainings(result),
            *_inferences(result),
            *_memory(result),
            *_learning(result),
        ]
    return list(dict.fromkeys(found))


# --- Dates.


def _dates(result: Result, now: dt.datetime) -> Iterator[str]:
    latest = now + CLOCKS_DIFFER
    for what, moment in _moments(result):
        if moment < FIRST_DAY:
            yield f"{what} is dated {moment:%Y-%m-%d}, before there was this benchmark"
        elif moment > latest:
            yield f"{what} is dated {moment:%Y-%m-%d}, in the future"


def _moments(result: Result) -> Iterator[tuple[str, dt.datetime]]:
    yield "it", _date(result.created)
    for outcome in result.phases:
        for ran in outcome.ran or ():
            yield from ((f"its {outcome.phase}", _date(text)) for text in (ran.began, ran.ended))
        measured = outcome.measurements
        if isinstance(measured, Training | Convergence):
            energies: tuple[Energy, ...] = (
                (measured.energy, measured.idle) if isinstance(measured, Training) else (measured.energy,)
            )
            spans = [span for energy in energies for span in energy.windows or ()]
            for moment in (moment for span in spans for moment in span):
                yield f"the energy of its {outcome.phase}", _instant(moment)


def _date(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:  # such as 2026-02-31, or a second 60
        return dt.datetime.max.replace(tzinfo=dt.UTC)


def _instant(seconds: float) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return dt.datetime.max.replace(tzinfo=dt.UTC)


# --- Rates against the device's own.


def _beyond_ceiling(result: Result) -> Iterator[str]:
    peaks = [measured.matmul_peak for measured in result.measured(Ceiling)]
    if not peaks:
        return
    for what, flops, devices in _rates(result):
        if flops > BEYOND_CEILING * max(peaks) * devices:
            times = flops / max(peaks) / devices
            yield f"{what} would take {times:.3g} times the operations a second of the measured matrix products"


def _rates(result: Result) -> Iterator[tuple[str, float, int]]:
    """What ran, its operations a second, and on how many devices."""
    model, ranks = standard().model, world_size(result)
    for training in result.measured(Training):
        yield "the training throughput", model.training_flops * training.images_per_second, ranks
    for convergence in result.measured(Convergence):
        yield "the throughput of the full training", model.training_flops * convergence.images_per_second, ranks
    for inference in result.measured(Inference):
        for size in inference.sizes:
            yield f"inference at batch {size.batch_size:,}", model.forward_flops * size.images_per_second, 1
    for latency in result.measured(Latency):
        yield "latency", model.forward_flops / latency.latency_median, 1
    for search in result.measured(MaxBatch):
        for one in search.tries:
            if one.images_per_second is not None:
                yield f"training at batch {one.batch_size:,}", model.training_flops * one.images_per_second, 1


# --- One thing, timed in several places.


def _trainings(result: Result) -> Iterator[str]:
    tried = [
        one.measurements.step_seconds_mean
        for search in result.measured(MaxBatch)
        for one in search.tries
        if one.measurements and one.batch_size == standard().training.batch_size and world_size(result) == 1
    ]
    full = [
        measured.training_seconds * measured.batch_size / measured.images for measured in result.measured(Convergence)
    ]
    for measured in result.measured(Training):
        step = measured.step_seconds_mean
        elsewhere = {
            "single steps": statistics.median(measured.step_seconds),
            "the last steps of its warm-up": step_seconds(measured.warmup_blocks[-1:]),
            "the search for the largest batch": min(tried, default=0.0),
            "the full training": min(full, default=0.0),
        }
        if rows := measured.feeding_blocks:
            elsewhere["steps on a batch that stays on the device"] = sum(row[2] for row in rows) / sum(
                row[0] for row in rows
            )
        for what, seconds in elsewhere.items():
            if seconds > FASTER_THAN_ITSELF * step:
                yield f"a step of the training's window took {step:.3g} s, and {what} {seconds:.3g} s a step"
        host = measured.window_host_seconds
        if (
            host
            and (spent := host.wait + host.transfer + host.dispatch + host.drain) > HOST_OF_WINDOW * measured.seconds
        ):
            yield f"the host spent {spent:.3g} s within the training's window, which took {measured.seconds:.3g} s"
    for seconds in full:
        windows = [measured.step_seconds_mean for measured in result.measured(Training)]
        if windows and statistics.median(windows) > FASTER_THAN_ITSELF * seconds > 0:
            yield f"a step of the full training took {seconds:.3g} s, and one of the window {statistics.median(windows):.3g} s"


def _inferences(result: Result) -> Iterator[str]:
    trained = [measured.images_per_second for measured in result.measured(Training)]
    least, most = INFERENCE_OF_TRAINING
    for measured in result.measured(Inference):
        slowest, at = 0.0, 0
        for size in sorted(measured.sizes, key=lambda size: size.batch_size):
            seconds = size.step_seconds_mean
            if slowest > SMALLER_STEP * seconds:
                yield f"inference of {size.batch_size:,} images took {seconds:.3g} s, and of {at:,} {slowest:.3g} s"
            if seconds > slowest:
                slowest, at = seconds, size.batch_size
        if trained and world_size(result) == 1:
            same = [size for size in measured.sizes if size.batch_size == standard().training.batch_size]
            for times in (size.images_per_second / statistics.median(trained) for size in same):
                if not least <= times <= most:
                    yield f"inference at batch {standard().training.batch_size} is {times:.3g} times as fast as training there"


# --- Memory, accuracy.


def _memory(result: Result) -> Iterator[str]:
    for outcome in result.phases:
        measured = outcome.measurements
        if isinstance(outcome, Done) and isinstance(measured, Training | Convergence):
            least = memory.least_of_training(standard(), result.precision, measured.batch_size // world_size(result))
            peak = result.peak_memory(measured.memory)
            if peak and peak[1] < least:
                yield (
                    f"the {outcome.phase} peaked at {peak[1] / 2**20:,.0f} MiB ({peak[0]}): weights, gradients, moments and "
                    f"what the backward pass needs take {least / 2**20:,.0f} MiB"
                )


def _learning(result: Result) -> Iterator[str]:
    if result.data.source != "cifar-100":
        return
    for measured in result.measured(Convergence):
        for row in measured.evaluations:
            epochs = row.step / measured.steps_per_epoch
            usual = float(np.interp(epochs, range(len(TOP1) + 1), (CHANCE, *TOP1)))
            if abs(row.top1 - usual) > TOP1_APART:
                yield f"top-1 after {epochs:.3g} epochs is {row.top1:.1%}, where trainings of this workload have {usual:.1%}"
                break
