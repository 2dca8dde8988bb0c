"""The phase that times training at the workload's batch."""

import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from aggregate.analysis import energy, memory
from aggregate.analysis.metrics import FULL_TRAINING, WINDOW, Figure, Metric, absent, half_width, percentile
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.plausibility import (
    A_TRAINING_STEP,
    MAX_FLOPS,
    ROUNDING,
    UNIT,
    Problems,
    apart,
    step_seconds,
    total_seconds,
    world_size,
)
from shared_spec.results import stability
from shared_spec.results.format import Result, Startup
from shared_spec.results.measurements import Ceiling, Convergence, MatmulSize, Training

METRICS = (
    Metric("headline_throughput", "training", "Throughput, full training (or window)", "images/s", 4,
           "over the full training, from the first image to the last evaluation, everything counted in; where no full "
           "training was run, over the steady window, and the note says so: the two are never set against each other"),
    Metric("training_throughput", "training", "Training throughput", "images/s", 4,
           "batch * steps / seconds over the whole window, without a wait per step; the median of the repeats",
           warns=True),
    Metric("efficiency", "training", "Training efficiency", "%", 4,
           "model FLOPs an image * training throughput / the matrix-product rate measured in the same run", warns=True),
    Metric("step_median", "training", "Step time, median", "ms", 4, "single training steps, each waited for"),
    Metric("step_p90", "training", "Step time, p90", "ms", 4, "the same steps"),
    Metric("first_step", "training", "First step, with compilation", "s", 3, "not part of the throughput"),
    Metric("startup", "training", "Start of the process to first step", "s", 3,
           "starting Python, importing framework and harness, reading data, loading weights; the first step itself, "
           "with its compilation, comes after it"),
    Metric("peak_memory", "training", "Peak memory, training", "GiB", 3,
           "the most that window, evaluation and full training took of the process or of its device, as the note says; "
           "different kinds do not compare", of_ranks="rank 0"),
    Metric("machine_memory", "training", "Memory taken from the machine", "GiB", 3,
           "the same peak as the NVIDIA driver books it, or on a Mac and on a CPU the system: what compares across platforms",
           of_ranks="rank 0"),
    Metric("window_memory", "training", "  peak of the window's process", "GiB", 3, "as the peak memory"),
    Metric("device_peak", "training", "  device, peak in use", "GiB", 3,
           "of the framework's allocations on the device; caches and what is merely reserved are not in it"),
    Metric("device_active", "training", "  device, in use at the end", "GiB", 3, "of the framework's allocations"),
    Metric("device_cache", "training", "  device, kept for reuse", "GiB", 3, "freed memory in MLX's cache, at the end"),
    Metric("device_process", "training", "  device, all of the process", "GiB", 3,
           "what the NVIDIA driver books on the process at the end: reserves, context and loaded code are in it"),
    Metric("device_process_peak", "training", "  device, all of the process, peak", "GiB", 3, "the same, polled"),
    Metric("host_peak", "training", "  process, peak resident", "GiB", 3, "high-water resident set of the process"),
    Metric("host_before_framework", "training", "  process, before the framework", "GiB", 3,
           "resident set before the framework was imported"),
    Metric("host_before_model", "training", "  process, before the weights", "GiB", 3,
           "resident set with the framework imported and its backend built, before weights, data and activations"),
    Metric("host_loader", "training", "  process, the loader's share", "GiB", 3,
           "of the resident set: the data set and the batches made ahead of need, by the size of their arrays"),
    Metric("footprint_peak", "training", "  process, peak footprint", "GiB", 3,
           "high-water footprint on macOS: resident, compressed and Metal's memory"),
    Metric("power", "training", "Power, training", "W", 3,
           "joules / seconds over exactly the window of the throughput; the note says of what, and meters that cover "
           "different things do not compare, nor do windows shorter than 60 s or 25 steps of the meter", of_ranks="rank 0"),
    Metric("energy_per_image", "training", "Energy per image, training", "J", 3, "joules / images over that window, gross",
           of_ranks="withheld"),
    Metric("energy_above_idle", "training", "  above idle", "J", 3,
           "the same less what the machine took before the framework, over the same time", of_ranks="withheld"),
    Metric("images_per_joule", "training", "Images per joule, training", "images/J", 3,
           "images / joules over that window, gross", of_ranks="withheld"),
    Metric("whole_power", "training", "Power with processor and memory", "W", 3,
           "the meter's figure and those of the host's processor packages and memory over the same window: what comes "
           "nearest to what a Mac's meter covers", of_ranks="rank 0"),
    Metric("whole_energy_per_image", "training", "Energy per image with these", "J", 3, "the same, by images",
           of_ranks="withheld"),
    Metric("idle_power_before", "training", "Power, idle, before the framework", "W", 3,
           "nothing of the training is there yet", of_ranks="rank 0"),
    Metric("idle_power", "training", "Power, idle, with its context", "W", 3,
           "before the training, model built and nothing running", of_ranks="rank 0"),
    Metric("device_wait", "training", "Device waiting for the host", "%", 4,
           "what steps on fresh batches take longer than steps on one batch that stays on the device, measured in turns "
           "after the window; the harness means to stay below 2 %, and what is below zero is noise"),
    Metric("host_wait", "training", "Host: waiting for a batch", "%", 4,
           "part of the window; the device may have had work meanwhile"),
    Metric("host_transfer", "training", "Host: moving a batch", "%", 4, "part of the window"),
    Metric("host_dispatch", "training", "Host: dispatching", "%", 4,
           "part of the window; where the device is the host, the work itself"),
    Metric("host_drain", "training", "Host: waiting for the device", "%", 4, "part of the window, at its synchronisations"),
    Metric("drift", "training", "Drift of step time", "%", 4,
           "last third of the window against the first; positive is slower"),
    Metric("training_variation", "training", "Spread of step time", "%", 3,
           "coefficient of variation of the window's blocks"),
    Metric("training_interval", "training", "Throughput known to, within a process", "%", 2,
           "half the width of its 95 % bootstrap interval over the window's blocks; what differs between processes is "
           "not in it"),
)  # fmt: skip


def _derive(measured: Training, source: Source) -> Iterator[Figure]:
    n, seconds = measured.steps, measured.seconds
    window = stability.of_window(measured.window_blocks, measured.steady, source.result.spec.content.measuring)
    full = source.result.measured(Convergence)
    if not full:
        notes = (f"over a {WINDOW}: no full training was run", *window.objections)
        yield Figure("headline_throughput", measured.images_per_second, n, notes=notes, basis=WINDOW)
    yield Figure("training_throughput", measured.images_per_second, n, notes=window.objections)
    yield _efficiency(measured, source.result)
    yield percentile("step_median", measured.step_seconds, 50)
    yield percentile("step_p90", measured.step_seconds, 90)
    yield Figure("first_step", measured.first_step_seconds, 1)
    processes = [measured.memory, *(one.memory for one in full)]
    of = FULL_TRAINING if full else WINDOW
    yield memory.whole_peak("peak_memory", processes, of, source.result)
    yield memory.taken("machine_memory", processes, of, source.result)
    yield memory.peak("window_memory", measured.memory, source.result)
    yield from memory.parts(measured.memory, source.result)
    yield from energy.of_window(measured)
    yield _device_wait(measured.feeding_blocks)
    yield Figure("host_wait", 100 * measured.window_host_wait_seconds / seconds, n)
    yield from _host_seconds(measured)
    for metric, share in (("drift", window.drift), ("training_variation", window.variation)):
        if share is None:
            yield absent(metric, "the window has fewer than three blocks", n)
        else:
            yield Figure(metric, 100 * share, n)
    yield half_width("training_interval", measured.images_per_second_interval, measured.images_per_second, n)
    yield _startup(source.outcome.startup)


def _efficiency(measured: Training, result: Result) -> Figure:
    rates = list(filter(math.isfinite, (size.operations_per_second for size in _matmuls(result))))
    if not rates:
        return absent("efficiency", "the matrix-product rate was not measured in this run", measured.steps)
    flops = result.spec.content.model.training_flops
    share = 100 * flops * measured.images_per_second / max(rates) / world_size(result)
    doubt = "more than" if share > 105 else "hardly any of what" if share < 1 else ""
    notes = (f"{doubt} the measured matrix-product rate allows: one of the two may be wrong",) if doubt else ()
    return Figure("efficiency", share, measured.steps, notes=notes)


def _matmuls(result: Result) -> Iterator[MatmulSize]:
    return (size for ceiling in result.measured(Ceiling) for size in ceiling.sizes)


FED_ENOUGH = 2.0
"""Per cent of the time up to which a device that waits for the host is none of the reader's concern."""


def _device_wait(rows: Sequence[tuple[int, float, float]] | None) -> Figure:
    """What steps on fresh batches take longer than steps on a resident one, per cent of the former."""
    if rows is None:
        return absent("device_wait", "format 1.0 did not record it")
    steps, fed, resident = (math.fsum(column) for column in zip(*rows, strict=True))
    share = 100 * (1 - resident / fed)
    return Figure("device_wait", share, int(steps), notes=_too_slow_a_host(rows) if share > FED_ENOUGH else ())


def _too_slow_a_host(rows: Sequence[tuple[int, float, float]]) -> tuple[str, ...]:
    """Whether the comparisons, each with its own chance, agree that the mark is passed."""
    kept = [resident / fed for _, fed, resident in rows]
    sure = len(kept) > 2 and np.mean(kept) + stability.half_interval(kept) < 1 - FED_ENOUGH / 100
    if sure:
        return (f"more than {FED_ENOUGH:g} %: the host is too slow for this device",)
    return (f"more than {FED_ENOUGH:g} %, but that may be chance: {len(kept)} comparisons",)


def _host_seconds(measured: Training) -> Iterator[Figure]:
    """What else the host spent the window on, per cent of it."""
    if (host := measured.window_host_seconds) is None:
        metrics = ("host_transfer", "host_dispatch", "host_drain")
        yield from (absent(metric, "format 1.0 did not record it", measured.steps) for metric in metrics)
        return
    yield Figure("host_transfer", 100 * host.transfer / measured.seconds, measured.steps)
    yield Figure("host_dispatch", 100 * host.dispatch / measured.seconds, measured.steps)
    yield Figure("host_drain", 100 * host.drain / measured.seconds, measured.steps)


def _startup(startup: Startup | None) -> Figure:
    """From the start of a training process to its first step."""
    if startup is None or startup.process_seconds is None or startup.preparation_seconds is None:
        return absent("startup", "not recorded: a run of format 1.0, or of several hosts")
    parts = {
        "interpreter and harness": startup.process_seconds,
        "framework and model": startup.backend_seconds,
        "data and weights": startup.preparation_seconds,
    }
    note = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    return Figure("startup", math.fsum(parts.values()), 1, notes=(note,))


def batch_contradictions(measured: Training | Convergence, here: str, result: Result) -> Problems:
    """A batch that is not the workload's."""
    ranks = result.parallel.world_size if result.parallel and result.parallel.scaling == "weak" else 1
    if measured.batch_size != (specified := ranks * result.spec.content.training.batch_size):
        yield f"{here}/batch_size", f"is {measured.batch_size}, but the spec says {specified}"


def _contradictions(measured: Training, here: str, result: Result) -> Problems:
    if (wait := measured.window_host_wait_seconds) > ROUNDING * measured.seconds:
        yield f"{here}/window_host_wait_seconds", f"is {wait:g}, but the whole window took {measured.seconds:g}"
    took = "a step of the window took", measured.step_seconds_mean
    yield from apart(f"{here}/step_seconds", statistics.median(measured.step_seconds), *took)
    yield from apart(f"{here}/warmup_blocks", step_seconds(measured.warmup_blocks[-1:]), *took)
    yield from energy.contradictions(measured.energy, measured.seconds, f"{here}/energy", result)
    for name, idle in (("idle", measured.idle), ("idle_before", measured.idle_before)):
        if idle is not None:
            yield from energy.contradictions(idle, idle.seconds, f"{here}/{name}", result, min_watts=0)
    yield from _contradictions_of_ranks(measured, here, result)
    yield from batch_contradictions(measured, here, result)
    yield from memory.contradictions(measured.memory, f"{here}/memory", result)
    yield from _beyond_matmul_peak(measured, here, result)


def _contradictions_of_ranks(measured: Training, here: str, result: Result) -> Problems:
    """What several ranks saw of the same steps."""
    of_ranks, world = measured.parallel, result.parallel
    if (of_ranks is None) != (world is None):
        yield f"{here}/parallel", "does not go with /parallel: both are null, or neither"
        return
    if of_ranks is None or world is None:
        return
    here = f"{here}/parallel"
    windows, steps = of_ranks.rank_window_blocks, of_ranks.rank_step_seconds
    for name, ranks in (("rank_window_blocks", len(windows)), ("rank_step_seconds", len(steps))):
        if ranks != world.world_size:
            yield f"{here}/{name}", f"is of {ranks} ranks, but /parallel/world_size is {world.world_size}"
    if windows[0] != measured.window_blocks:
        yield f"{here}/rank_window_blocks/0", "is not what rank 0 says in window_blocks"
    if steps[0] != measured.step_seconds:
        yield f"{here}/rank_step_seconds/0", "is not what rank 0 says in step_seconds"
    if any([steps for steps, _ in blocks] != [steps for steps, _ in windows[0]] for blocks in windows):
        yield f"{here}/rank_window_blocks", "are of different numbers of steps"
    for rank, blocks in enumerate(windows):
        took = "rank 0 took", step_seconds(windows[0])
        yield from apart(f"{here}/rank_window_blocks/{rank}", step_seconds(blocks), *took)
    whole, hidden = of_ranks.communication_seconds, of_ranks.overlapped_seconds
    if whole is not None and whole > UNIT * measured.step_seconds_mean:
        yield f"{here}/communication_seconds", f"is {whole:g}, far more than a whole step takes"
    if hidden is not None and (whole is None or hidden > ROUNDING * whole):
        yield f"{here}/overlapped_seconds", f"is {hidden:g}, more than the communication took"


def _beyond_matmul_peak(measured: Training, here: str, result: Result) -> Problems:
    rates = [size.operations_per_second for size in _matmuls(result)]
    rate = result.spec.content.model.training_flops * measured.images_per_second
    if rate > UNIT * world_size(result) * max(rates, default=MAX_FLOPS / UNIT):
        yield f"{here}/window_blocks", f"mean {rate:.3g} operations a second, far beyond the device's matrix products"


def _seconds(measured: Training) -> float:
    blocks = total_seconds(measured.warmup_blocks) + measured.seconds
    return math.fsum([measured.first_step_seconds, *measured.step_seconds, blocks])


def _windows(measured: Training) -> dict[str, float]:
    return {"window_blocks": measured.seconds}


def _work(measured: Training, result: Result) -> Iterator[Work]:
    yield Work(A_TRAINING_STEP, "window_blocks", measured.step_seconds_mean)


PHASE = Phase(
    "training", METRICS, _derive, _contradictions, _seconds, _windows, "window_seconds", _work, "training_throughput"
)
