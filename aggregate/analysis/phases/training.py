"""The phase that times training at the workload's batch."""

import math
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from aggregate.analysis import energy, memory
from aggregate.analysis.hardware import ranks_of
from aggregate.analysis.metrics import Figure, Metric, absent, all_absent, half_width, percentile
from aggregate.analysis.phase import Head, Phase, Source
from aggregate.analysis.phases import matmul_peak
from aggregate.analysis.plausibility import (
    A_TRAINING_STEP,
    CLOCK_TOLERANCE,
    MAX_FLOPS,
    UNIT,
    Problems,
    apart,
    step_seconds,
    total_seconds,
)
from aggregate.analysis.result import Measured, Result
from shared_spec.results import stability
from shared_spec.results.stability import step_rate

METRICS = (
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
           "of the process or of its device, as the note says; different kinds do not compare", of_ranks="rank 0"),
    Metric("device_peak", "training", "  device, peak in use", "GiB", 3,
           "of the framework's allocations on the device; caches and what is merely reserved are not in it"),
    Metric("device_active", "training", "  device, in use at the end", "GiB", 3, "of the framework's allocations"),
    Metric("device_cache", "training", "  device, kept for reuse", "GiB", 3, "freed memory in MLX's cache, at the end"),
    Metric("device_process", "training", "  device, all of the process", "GiB", 3,
           "what the NVIDIA driver books on the process at the end: reserves, context and loaded code are in it"),
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
           "different things do not compare", of_ranks="rank 0"),
    Metric("energy_per_image", "training", "Energy per image, training", "J", 3, "joules / images over that window",
           of_ranks="withheld"),
    Metric("idle_power", "training", "Power, idle", "W", 3, "before the training, model built and nothing running",
           of_ranks="rank 0"),
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


def images_per_second(measured: Measured) -> float:
    """Images over total time of the window."""
    return float(measured["batch_size"] * step_rate(measured["window_blocks"]))


def block_images_per_second(measured: Measured) -> list[float]:
    """The same of each block of the window: its spread."""
    return [measured["batch_size"] * steps / seconds for steps, seconds in measured["window_blocks"]]


def _derive(measured: Measured, source: Source) -> Iterator[Figure]:
    blocks = measured["window_blocks"]
    n, seconds = int(sum(steps for steps, _ in blocks)), total_seconds(blocks)
    window = stability.of_window(blocks, measured["steady"], source.result.spec.measuring)
    yield Figure("training_throughput", images_per_second(measured), n, notes=window.objections)
    yield _efficiency(images_per_second(measured), n, source.result)
    yield percentile("step_median", measured["step_seconds"], 50)
    yield percentile("step_p90", measured["step_seconds"], 90)
    yield Figure("first_step", measured["first_step_seconds"], 1)
    yield memory.peak("peak_memory", measured["memory"], source.result)
    yield from memory.parts(measured["memory"], source.result)
    yield from _power(measured, seconds, n * measured["batch_size"])
    yield _device_wait(measured["feeding_blocks"])
    yield Figure("host_wait", 100 * measured["window_host_wait_seconds"] / seconds, n)
    yield from _host_seconds(measured["window_host_seconds"], seconds, n)
    for metric, share in (("drift", window.drift), ("training_variation", window.variation)):
        if share is None:
            yield absent(metric, "the window has fewer than three blocks", n)
        else:
            yield Figure(metric, 100 * share, n)
    yield half_width("training_interval", stability.window_interval(blocks), step_rate(blocks), n)
    yield _startup(source.outcome["startup"])


def _efficiency(throughput: float, n: int, result: Result) -> Figure:
    each = [rate for measured in result.measured("ceiling") for rate in matmul_peak.rates(measured).values()]
    rates = list(filter(math.isfinite, each))
    if not rates:
        return absent("efficiency", "the matrix-product rate was not measured in this run", n)
    share = 100 * result.spec.model.training_flops * throughput / max(rates) / ranks_of(result).size
    doubt = "more than" if share > 105 else "hardly any of what" if share < 1 else ""
    notes = (f"{doubt} the measured matrix-product rate allows: one of the two may be wrong",) if doubt else ()
    return Figure("efficiency", share, n, notes=notes)


def _power(measured: Measured, seconds: float, images: int) -> Iterator[Figure]:
    """Power and energy over the window of `seconds`, and before it."""
    window, idle = measured["energy"], measured["idle"]
    if window["joules"] is None:
        yield from all_absent(("power", "energy_per_image"), energy.unmetered(window))
    else:
        notes = (energy.meter(window),)
        yield Figure("power", window["joules"] / seconds, window["samples"], notes=notes)
        yield Figure("energy_per_image", window["joules"] / images, window["samples"], notes=notes)
    if idle["joules"] is None:
        yield absent("idle_power", energy.unmetered(idle))
    else:
        yield Figure("idle_power", idle["joules"] / idle["seconds"], idle["samples"], notes=(energy.meter(idle),))


FED_ENOUGH = 2.0
"""Per cent of the time up to which a device that waits for the host is none of the reader's concern."""


def _device_wait(rows: list[list[float]] | None) -> Figure:
    """What steps on fresh batches take longer than steps on a resident one, per cent of the former."""
    if rows is None:
        return absent("device_wait", "format 1.0 did not record it")
    steps, fed, resident = (math.fsum(column) for column in zip(*rows, strict=True))
    share = 100 * (1 - resident / fed)
    return Figure("device_wait", share, int(steps), notes=_too_slow_a_host(rows) if share > FED_ENOUGH else ())


def _too_slow_a_host(rows: list[list[float]]) -> tuple[str, ...]:
    """Whether the comparisons, each with its own chance, agree that the mark is passed."""
    kept = [resident / fed for _, fed, resident in rows]
    sure = len(kept) > 2 and np.mean(kept) + stability.half_interval(kept) < 1 - FED_ENOUGH / 100
    if sure:
        return (f"more than {FED_ENOUGH:g} %: the host is too slow for this device",)
    return (f"more than {FED_ENOUGH:g} %, but that may be chance: {len(kept)} comparisons",)


def _host_seconds(host: dict[str, float] | None, seconds: float, n: int) -> Iterator[Figure]:
    """What else the host spent the window on, per cent of it."""
    for metric, name in (("host_transfer", "transfer"), ("host_dispatch", "dispatch"), ("host_drain", "drain")):
        if host is None:
            yield absent(metric, "format 1.0 did not record it", n)
        else:
            yield Figure(metric, 100 * host[name] / seconds, n)


def _startup(startup: dict[str, Any] | None) -> Figure:
    """From the start of a training process to its first step."""
    if startup is None or None in startup.values():
        return absent("startup", "not recorded: a run of format 1.0, or of several hosts")
    words = (
        ("interpreter and harness", "process"),
        ("framework and model", "backend"),
        ("data and weights", "preparation"),
    )
    note = ", ".join(f"{name} {startup[f'{key}_seconds']:.1f} s" for name, key in words)
    return Figure("startup", math.fsum(startup.values()), 1, notes=(note,))


def batch_contradictions(measured: Measured, here: str, head: Head) -> Problems:
    """A batch that is not the workload's."""
    parallel = head.content["parallel"]
    ranks = head.world_size if parallel and parallel["scaling"] == "weak" else 1
    if measured["batch_size"] != (specified := ranks * head.spec.training.batch_size):
        yield f"{here}/batch_size", f"is {measured['batch_size']}, but the spec says {specified}"


def _contradictions(measured: Measured, here: str, head: Head) -> Problems:
    window, seconds = measured["window_blocks"], total_seconds(measured["window_blocks"])
    if (wait := measured["window_host_wait_seconds"]) > CLOCK_TOLERANCE * seconds:
        yield f"{here}/window_host_wait_seconds", f"is {wait:g}, but the whole window took {seconds:g}"
    took = "a step of the window took", step_seconds(window)
    yield from apart(f"{here}/step_seconds", statistics.median(measured["step_seconds"]), *took)
    yield from apart(f"{here}/warmup_blocks", step_seconds(measured["warmup_blocks"][-1:]), *took)
    yield from energy.contradictions(measured["energy"], seconds, f"{here}/energy", head)
    yield from energy.contradictions(measured["idle"], measured["idle"]["seconds"], f"{here}/idle", head, min_watts=0)
    yield from _contradictions_of_ranks(measured, here, head)
    yield from batch_contradictions(measured, here, head)
    yield from memory.contradictions(measured["memory"], f"{here}/memory", head)
    yield from _beyond_matmul_peak(measured, here, head)


def _contradictions_of_ranks(measured: Measured, here: str, head: Head) -> Problems:
    """What several ranks saw of the same steps."""
    of_ranks, world = measured["parallel"], head.content["parallel"]
    if (of_ranks is None) != (world is None):
        yield f"{here}/parallel", "does not go with /parallel: both are null, or neither"
        return
    if of_ranks is None or world is None:
        return
    here = f"{here}/parallel"
    for name, own in (("rank_window_blocks", "window_blocks"), ("rank_step_seconds", "step_seconds")):
        if (ranks := len(of_ranks[name])) != world["world_size"]:
            yield f"{here}/{name}", f"is of {ranks} ranks, but /parallel/world_size is {world['world_size']}"
        if of_ranks[name][0] != measured[own]:
            yield f"{here}/{name}/0", f"is not what rank 0 says in {own}"
    windows = of_ranks["rank_window_blocks"]
    if any([steps for steps, _ in blocks] != [steps for steps, _ in windows[0]] for blocks in windows):
        yield f"{here}/rank_window_blocks", "are of different numbers of steps"
    for rank, blocks in enumerate(windows):
        took = "rank 0 took", step_seconds(windows[0])
        yield from apart(f"{here}/rank_window_blocks/{rank}", step_seconds(blocks), *took)
    whole, hidden = of_ranks["communication_seconds"], of_ranks["overlapped_seconds"]
    if whole is not None and whole > UNIT * step_seconds(measured["window_blocks"]):
        yield f"{here}/communication_seconds", f"is {whole:g}, far more than a whole step takes"
    if hidden is not None and (whole is None or hidden > CLOCK_TOLERANCE * whole):
        yield f"{here}/overlapped_seconds", f"is {hidden:g}, more than the communication took"


def _beyond_matmul_peak(measured: Measured, here: str, head: Head) -> Problems:
    rates = [rate for m in head.measured("ceiling") for rate in matmul_peak.rates(m).values()]
    rate = head.spec.model.training_flops * measured["batch_size"] / step_seconds(measured["window_blocks"])
    if rate > UNIT * head.world_size * max(rates, default=MAX_FLOPS / UNIT):
        yield f"{here}/window_blocks", f"mean {rate:.3g} operations a second, far beyond the device's matrix products"


def _seconds(measured: Measured) -> float:
    blocks = total_seconds(measured["warmup_blocks"]) + total_seconds(measured["window_blocks"])
    return math.fsum([measured["first_step_seconds"], *measured["step_seconds"], blocks])


def _windows(measured: Measured) -> dict[str, float]:
    return {"window_blocks": total_seconds(measured["window_blocks"])}


def _work(measured: Measured, head: Head) -> Iterator[tuple[str, str, float]]:
    yield A_TRAINING_STEP, "window_blocks", step_seconds(measured["window_blocks"])


PHASE = Phase("training", METRICS, _derive, _contradictions, _seconds, _windows, "window_seconds", _work)
