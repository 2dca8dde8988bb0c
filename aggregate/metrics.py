"""Every figure of the comparison, derived from the raw samples of a result, with its definition."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aggregate.hardware import hardware_of, ranks_of
from aggregate.reading import Result
from shared_spec.results import stability
from shared_spec.results.prices import JOULES_PER_KWH, Prices
from shared_spec.results.stability import drift as drift
from shared_spec.results.stability import step_rate as step_rate

PHASES = ("conformance", "training", "latency", "inference", "max_batch", "convergence", "ceiling")
"""In the order of the tables."""


@dataclass(frozen=True)
class Metric:
    """One figure: what it is called and how it is found.

    Attributes:
        key: name in the data frame.
        phase: the phase whose outcome it is derived from.
        title, unit: as in the tables.
        digits: significant digits shown; percentages have one decimal instead.
        definition: how it is found, for the reader of the report.
        merge: how repeats become one: their median, or their sum for what is counted.
    """

    key: str
    phase: str
    title: str
    unit: str
    digits: int
    definition: str
    merge: Literal["median", "sum"] = "median"


METRICS = (
    Metric("conformance_checks", "conformance", "Conformance checks passed", "", 4,
           "checks on this machine that model, gradients and updates are the specified ones", "sum"),
    Metric("conformance_worst", "conformance", "Worst figure / its bound", "", 2,
           "largest ratio of a check's figure to its bound; at most 1 where all passed, exact ones counting as 0"),
    Metric("training_throughput", "training", "Training throughput", "images/s", 4,
           "batch * steps / seconds over the whole window, without a wait per step; the median of the repeats"),
    Metric("efficiency", "training", "Training efficiency", "%", 4,
           "model FLOPs an image * training throughput / the matrix-product rate measured in the same run"),
    Metric("step_median", "training", "Step time, median", "ms", 4, "single training steps, each waited for"),
    Metric("step_p90", "training", "Step time, p90", "ms", 4, "the same steps"),
    Metric("first_step", "training", "First step, with compilation", "s", 3, "not part of the throughput"),
    Metric("startup", "training", "Start of the process to first step", "s", 3,
           "starting Python, importing framework and harness, reading data, loading weights; the first step itself, "
           "with its compilation, comes after it"),
    Metric("peak_memory", "training", "Peak memory, training", "GiB", 3,
           "of the process or of its device, as the note says; different kinds do not compare"),
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
           "different things do not compare"),
    Metric("energy_per_image", "training", "Energy per image, training", "J", 3, "joules / images over that window"),
    Metric("idle_power", "training", "Power, idle", "W", 3, "before the training, model built and nothing running"),
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
    Metric("latency_median", "latency", "Latency, median", "ms", 4,
           "batch 1, image in host memory to logits in host memory"),
    Metric("latency_p90", "latency", "Latency, p90", "ms", 4, "the same samples"),
    Metric("latency_p95", "latency", "Latency, p95", "ms", 4, "the same samples"),
    Metric("latency_p99", "latency", "Latency, p99", "ms", 4, "the same samples"),
    Metric("latency_interval", "latency", "Median known to, within a process", "%", 2,
           "half the width of its 95 % interval by order statistics"),
    Metric("latency_samples", "latency", "Latency samples", "", 4, "in each repeat; the median of the repeats"),
    Metric("device_latency_median", "latency", "Latency on the device, median", "ms", 4,
           "batch 1, image on the device to logits on the device"),
    Metric("inference_best", "inference", "Inference throughput, best", "images/s", 4,
           "over the batch sizes tried; the note says which"),
    Metric("inference_throughput", "inference", "Inference, batch", "images/s", 4,
           "batch * steps / seconds over the whole window, images on the device"),
    Metric("max_batch", "max_batch", "Largest batch that trains", "images", 6,
           "found by doubling and bisection, every try a process of its own; the note says what ended the search"),
    Metric("max_batch_throughput", "max_batch", "Largest batch: throughput", "images/s", 4,
           "batch * steps / seconds over a few steps after two that settle: less sure than the training throughput"),
    Metric("max_batch_memory", "max_batch", "Largest batch: peak memory", "GiB", 3, "as the peak memory of the training"),
    Metric("batch_throughput", "max_batch", "Training, batch", "images/s", 4, "of every batch that was tried and fits"),
    Metric("batch_memory", "max_batch", "Peak memory, batch", "GiB", 3, "of every batch that was tried and fits"),
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
    Metric("energy_to_target", "convergence", "Energy to target", "kJ", 4, "same clock as the time to target"),
    Metric("top1_best", "convergence", "Top-1, best epoch", "%", 4, "of all test images"),
    Metric("top1_final", "convergence", "Top-1, last epoch", "%", 4, "of all test images"),
    Metric("full_throughput", "convergence", "Whole training: throughput", "images/s", 4,
           "training images / seconds from the first image to the last evaluation, everything counted in"),
    Metric("full_throughput_training", "convergence", "  throughput of training alone", "images/s", 4,
           "the same without evaluation, checkpoints and first steps"),
    Metric("full_host_wait", "convergence", "Whole training: waiting for data", "%", 4,
           "part of those seconds with no batch ready"),
    Metric("full_memory", "convergence", "Whole training: peak memory", "GiB", 3, "as the peak memory of the training"),
    Metric("full_energy", "convergence", "Whole training: energy", "kJ", 4, "up to the last evaluation"),
    Metric("cost_to_target", "convergence", "Rental to target", "", 3,
           "time to target * price of an hour of the machine that the price file has for this device"),
    Metric("cost_full", "convergence", "Rental, full training", "", 3, "the same over all epochs of the spec"),
    Metric("electricity_to_target", "convergence", "Electricity to target", "", 3,
           "energy to target * first tariff of the price file; of what the meter covers only; a rental has it in"),
    Metric("electricity_full", "convergence", "Electricity, full training", "", 3, "the same over all epochs"),
    Metric("ceiling", "ceiling", "Matrix-product rate", "TFLOP/s", 3,
           "2 n^3 per product of two [n, n] matrices at this precision; the best n"),
)  # fmt: skip
NOT_RUN = "phase was not run"
"""How the reason ends where a phase is not in a result."""
METRIC = {metric.key: metric for metric in METRICS}

MEMORY = {
    "mlx_peak": "peak of MLX's allocations, without its cache",
    "tf_peak": "peak of TensorFlow's device memory in use, not reserved",
    "host_peak": "high-water resident set of the whole process",
}
PARTS_OF_MEMORY = {
    "device_peak": ("mlx_peak", "tf_peak"),
    "device_active": ("mlx_active", "tf_current"),
    "device_cache": ("mlx_cache",),
    "device_process": ("nvml_process",),
    "host_peak": ("host_peak",),
    "host_before_framework": ("host_before_framework",),
    "host_before_model": ("host_before_model",),
    "host_loader": ("host_loader",),
    "footprint_peak": ("footprint_peak",),
}
"""Names under which a result may have each detail of its memory."""
PER_BATCH = ("inference_throughput", "batch_throughput", "batch_memory")
"""Metrics with a figure for each batch size."""
HEADLINE_MEMORY = {"mlx": ("mlx_peak", "host_peak"), "tf-cuda": ("tf_peak", "host_peak"), "torch-ipex": ("host_peak",)}
"""Per platform, the figures that can stand for its peak memory; the first that was measured does."""


@dataclass(frozen=True)
class Figure:
    """One metric of one repeat.

    Attributes:
        value: in the metric's unit; NaN where it could not be had.
        n: steps, samples or checks behind it.
        batch_size: the batch it holds for, where that is not the spec's.
        notes: what a reader must know beside the number.
        reason: why there is no value; empty where there is one.
        never: there is no value because it lies beyond all others: a time to what was not reached.
        unit: where it is not the metric's: a currency.
    """

    metric: str
    value: float
    n: int
    batch_size: int | None = None
    notes: tuple[str, ...] = ()
    reason: str = ""
    never: bool = False
    unit: str = ""


Blocks = list[list[float]]
"""Rows of [steps, seconds]."""
Measured = dict[str, Any]
"""Measurements of one outcome, as results.schema.json has them."""


def _steps(blocks: Blocks) -> int:
    return int(sum(steps for steps, _ in blocks))


def block_rates(measured: Measured) -> list[float]:
    """Training images/s of each block of the window: its spread."""
    return [measured["batch_size"] * steps / seconds for steps, seconds in measured["window_blocks"]]


def ceiling_rates(measured: Measured) -> dict[int, float]:
    """Operations per second of [n, n] matrix products, by n."""
    return {int(size["n"]): 2.0 * size["n"] ** 3 * step_rate(size["blocks"]) for size in measured["sizes"]}


def _percentile(metric: str, samples: Sequence[float], q: int, unit: float = 1e3) -> Figure:
    """Percentile by linear interpolation; a tail needs 1 / (1 - q) samples, or it would be their maximum."""
    n, needed = len(samples), math.ceil(100 / (100 - q)) if q > 50 else 1
    if n < needed:
        return Figure(metric, math.nan, n, reason=f"{n} samples are too few for a p{q}, which needs {needed}")
    return Figure(metric, unit * float(np.percentile(samples, q)), n)


def _conformance(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    checks = measured["checks"]
    yield Figure("conformance_checks", sum(check["passed"] for check in checks), len(checks))
    ratios = [_of_bound(check["figure"], check["bound"]) for check in checks]
    if all(map(math.isfinite, ratios)):
        yield Figure("conformance_worst", max(ratios), len(ratios))
    else:
        yield Figure("conformance_worst", math.nan, len(ratios), reason="a figure is not finite, or above a bound of 0")


def _of_bound(figure: float | None, bound: float) -> float:
    """A figure as a part of its bound; 0 where both are, which is how an exact check is passed."""
    if figure is None or (bound <= 0 < figure):
        return math.inf
    return figure / bound if bound > 0 else 0.0


def _training(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    blocks = measured["window_blocks"]
    n, seconds = _steps(blocks), math.fsum(s for _, s in blocks)
    found = stability.of_window(blocks, measured["steady"], result.spec.measuring)
    throughput = measured["batch_size"] * step_rate(blocks)
    yield Figure("training_throughput", throughput, n, notes=found.objections)
    yield _efficiency(throughput, n, result)
    yield _percentile("step_median", measured["step_seconds"], 50)
    yield _percentile("step_p90", measured["step_seconds"], 90)
    yield Figure("first_step", measured["first_step_seconds"], 1)
    yield _peak_memory("peak_memory", measured["memory"], result)
    yield from _parts_of_memory(measured["memory"], result)
    yield from _power(measured, seconds, n * measured["batch_size"])
    yield _device_wait(measured["feeding_blocks"])
    yield Figure("host_wait", 100 * measured["window_host_wait_seconds"] / seconds, n)
    yield from _host_seconds(measured["window_host_seconds"], seconds, n)
    for metric, share in (("drift", found.drift), ("training_variation", found.variation)):
        if share is None:
            yield Figure(metric, math.nan, n, reason="the window has fewer than three blocks")
        else:
            yield Figure(metric, 100 * share, n)
    yield _half_interval("training_interval", stability.window_interval(blocks), step_rate(blocks), n)


FED_ENOUGH = 2.0
"""Per cent of the time up to which a device that waits for the host is none of the reader's concern."""


def _device_wait(rows: list[list[float]] | None) -> Figure:
    """What steps on fresh batches take longer than steps on a resident one, per cent of the former."""
    if rows is None:
        return Figure("device_wait", math.nan, 0, reason="format 1.0 did not record it")
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
            yield Figure(metric, math.nan, n, reason="format 1.0 did not record it")
        else:
            yield Figure(metric, 100 * host[name] / seconds, n)


def _half_interval(metric: str, interval: tuple[float, float] | None, centre: float, n: int) -> Figure:
    """Half the width of an interval, per cent of what lies in it."""
    if interval is None:
        return Figure(metric, math.nan, n, reason=f"{n:,} steps or samples are too few for an interval")
    return Figure(metric, 50 * (interval[1] - interval[0]) / centre, n)


def _startup(outcome: Measured) -> Figure:
    """From the start of a training process to its first step."""
    parts = outcome["startup"]
    if parts is None or None in parts.values():
        return Figure("startup", math.nan, 0, reason="not recorded: a run of format 1.0, or of several hosts")
    words = (
        ("interpreter and harness", "process"),
        ("framework and model", "backend"),
        ("data and weights", "preparation"),
    )
    note = ", ".join(f"{name} {parts[f'{key}_seconds']:.1f} s" for name, key in words)
    return Figure("startup", math.fsum(parts.values()), 1, notes=(note,))


def _efficiency(throughput: float, n: int, result: Result) -> Figure:
    outcomes = [outcome["measurements"] for outcome in result.outcomes("ceiling") if outcome["status"] == "ok"]
    rates = [rate for measured in outcomes for rate in ceiling_rates(measured).values() if math.isfinite(rate)]
    if not rates:
        return Figure("efficiency", math.nan, n, reason="the matrix-product rate was not measured in this run")
    share = 100 * result.spec.model.training_flops * throughput / max(rates) / ranks_of(result).size
    doubt = "more than" if share > 105 else "hardly any of what" if share < 1 else ""
    notes = (f"{doubt} the measured matrix-product rate allows: one of the two may be wrong",) if doubt else ()
    return Figure("efficiency", share, n, notes=notes)


def _peak_memory(metric: str, memory: dict[str, int | None], result: Result, batch: int | None = None) -> Figure:
    names = HEADLINE_MEMORY[result.content["platform"]]
    for name in names:
        if (peak := memory.get(name)) is not None:
            return Figure(metric, peak / 2**30, 1, batch, notes=(f"{name}: {MEMORY[name]}",))
    return Figure(metric, math.nan, 0, batch, reason=f"the result gives no {' or '.join(names)}")


def _parts_of_memory(memory: dict[str, int | None], result: Result) -> Iterator[Figure]:
    for metric, names in PARTS_OF_MEMORY.items():
        known = [value for name in names if (value := memory.get(name)) is not None]
        if known:
            yield Figure(metric, known[0] / 2**30, 1)
        else:
            yield Figure(metric, math.nan, 0, reason=f"{result.content['platform']} gives no such figure here")


def meter(energy: Measured) -> str:
    """Which meter a figure is from and what it covers: figures compare only where this is the same."""
    return f"{energy['source']}: {energy['scope']}"


def _power(measured: Measured, seconds: float, images: int) -> Iterator[Figure]:
    """Power and energy over the window of `seconds`, and before it."""
    energy, idle = measured["energy"], measured["idle"]
    if energy["joules"] is None:
        yield from _without(("power", "energy_per_image"), _unmetered(energy))
    else:
        notes = (meter(energy),)
        yield Figure("power", energy["joules"] / seconds, energy["samples"], notes=notes)
        yield Figure("energy_per_image", energy["joules"] / images, energy["samples"], notes=notes)
    if idle["joules"] is None:
        yield from _without(("idle_power",), _unmetered(idle))
    else:
        yield Figure("idle_power", idle["joules"] / idle["seconds"], idle["samples"], notes=(meter(idle),))


def _unmetered(energy: Measured) -> str:
    return energy["reason"] or "the meter gave no figure"


def _without(metrics: Sequence[str], reason: str, never: bool = False) -> Iterator[Figure]:
    return (Figure(metric, math.nan, 0, reason=reason, never=never) for metric in metrics)


def _latency(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    samples = measured["host_to_host_seconds"]
    unsteady = () if measured["steady"] else ("latencies had not become steady when sampling began",)
    for q, name in ((50, "latency_median"), (90, "latency_p90"), (95, "latency_p95"), (99, "latency_p99")):
        figure = _percentile(name, samples, q)
        yield Figure(figure.metric, figure.value, figure.n, notes=unsteady, reason=figure.reason)
    interval = stability.quantile_interval(samples, 0.5)
    yield _half_interval("latency_interval", interval, float(np.median(samples)), len(samples))
    yield Figure("latency_samples", len(samples), len(samples))
    yield _percentile("device_latency_median", measured["device_only_seconds"], 50)


def _inference(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    figures = []
    for size in measured["sizes"]:
        batch, blocks = int(size["batch_size"]), size["window_blocks"]
        notes = stability.of_window(blocks, size["steady"], result.spec.measuring).objections
        figures.append(Figure("inference_throughput", batch * step_rate(blocks), _steps(blocks), batch, notes))
    best = max(figures, key=lambda figure: figure.value)
    yield Figure("inference_best", best.value, best.n, notes=(f"at batch {best.batch_size:,}", *best.notes))
    yield from figures


def untried(results: Sequence[Result], profiles: Sequence[str]) -> str:
    """Why a run, of these results and profiles, has no inference figure at a batch size that others have."""
    outcomes = [outcome for result in results for outcome in result.outcomes("inference") if outcome["status"] == "ok"]
    stopped = next((o["measurements"]["stopped"] for o in outcomes if o["measurements"]["stopped"]), None)
    return f"not tried after {stopped}" if stopped else f"profile {' and '.join(profiles)} ends at a smaller batch"


def _ceiling(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    n, rate = max(ceiling_rates(measured).items(), key=lambda item: item[1])
    yield Figure("ceiling", rate / 1e12, len(measured["sizes"]), notes=(f"at n = {n:,}",))


def _max_batch(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    fitting = [t for t in measured["tries"] if t["outcome"] == "fits"]
    largest = next(t for t in fitting if t["batch_size"] == measured["batch_size"])
    yield Figure("max_batch", largest["batch_size"], len(measured["tries"]), notes=(_search_ended(measured),))
    yield _try_rate("max_batch_throughput", largest)
    yield _peak_memory("max_batch_memory", largest["measurements"]["memory"], result)
    for one in fitting:
        yield _try_rate("batch_throughput", one, one["batch_size"])
        yield _peak_memory("batch_memory", one["measurements"]["memory"], result, one["batch_size"])


def _search_ended(measured: Measured) -> str:
    last = next((t for t in reversed(measured["tries"]) if t["outcome"] != "fits"), None)
    why = f" ({last['reason']})" if last and last["reason"] and last["outcome"] != "out of memory" else ""
    return f"the search was ended by {measured['ended_by']}{why}"


def _try_rate(metric: str, one: Measured, batch: int | None = None) -> Figure:
    blocks = one["measurements"]["window_blocks"]
    note = f"over {_steps(blocks):,} steps only"
    return Figure(metric, one["batch_size"] * step_rate(blocks), _steps(blocks), batch, (note,))


TO_TARGET = ("time_to_target", "epochs_to_target", "training_to_target", "evaluation_to_target",
             "checkpoints_to_target")  # fmt: skip
"""Figures that a training which misses the target has not, and which count as beyond all others."""


def _convergence(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    epochs, seconds = measured["epochs"], measured["seconds"]
    n, reached = len(epochs), measured["epochs_to_target"] is not None
    alone = seconds - measured["evaluation_seconds"] - measured["checkpoint_seconds"] - measured["first_step_seconds"]
    notes = _remarks(measured)
    yield Figure("target_reached", int(reached), 1, notes=notes)
    if reached:
        yield from _to_target(measured, notes)
    else:
        yield from _without(TO_TARGET, missed(measured), never=True)
    yield Figure("first_steps", measured["first_step_seconds"] / 60, 1 + measured["resumed"])
    yield Figure("top1_best", 100 * max(epoch["top1"] for epoch in epochs), n)
    yield Figure("top1_final", 100 * epochs[-1]["top1"], n)
    yield Figure("full_throughput", measured["images"] / seconds, n, notes=notes)
    yield _positive("full_throughput_training", alone, lambda: measured["images"] / alone, n)
    yield Figure("full_host_wait", 100 * measured["host_wait_seconds"] / seconds, n)
    yield _peak_memory("full_memory", measured["memory"], result)
    yield from _energy_of_training(measured)
    yield from _rentals(measured, result, prices)
    yield from _electricity(measured, result, prices)


def missed(measured: Measured) -> str:
    """Why a training has no time to target."""
    best = max(epoch["top1"] for epoch in measured["epochs"])
    target, n = measured["target_top1"], len(measured["epochs"])
    return f"a target of {target:.1%} top-1 was not reached in {n} epoch{'s' * (n != 1)}: the best was {best:.1%}"


def _remarks(measured: Measured) -> tuple[str, ...]:
    """What a reader must know beside the figures of a training."""
    notes = []
    if measured["resumed"]:
        times = f"{measured['resumed']} time{'s' * (measured['resumed'] != 1)}"
        notes.append(f"resumed {times} after it had been ended; the time without a process is not counted")
    if measured["epochs"][-1]["test_loss"] is None:
        notes.append(f"the loss was no longer finite after epoch {measured['epochs'][-1]['epoch']}")
    return tuple(notes)


def _positive(metric: str, divisor: float, value: Callable[[], float], n: int) -> Figure:
    if divisor > 0:
        return Figure(metric, value(), n)
    return Figure(metric, math.nan, n, reason="evaluation, checkpoints and first steps took all of the time")


def _to_target(measured: Measured, notes: tuple[str, ...]) -> Iterator[Figure]:
    row = measured["epochs"][measured["epochs_to_target"] - 1]
    alone = row["seconds"] - row["evaluation_seconds"] - row["checkpoint_seconds"] - measured["first_step_seconds"]
    n = int(row["epoch"])
    yield Figure("time_to_target", row["seconds"] / 60, n, notes=notes)
    yield Figure("epochs_to_target", n, n)
    yield _positive("training_to_target", alone, lambda: alone / 60, n)
    yield Figure("evaluation_to_target", row["evaluation_seconds"] / 60, n)
    yield Figure("checkpoints_to_target", row["checkpoint_seconds"] / 60, n)


def _joules_to_target(measured: Measured) -> float | None:
    joules: float | None = measured["epochs"][measured["epochs_to_target"] - 1]["joules"]
    return joules


def _energy_of_training(measured: Measured) -> Iterator[Figure]:
    energy = measured["energy"]
    notes, samples = (meter(energy),), energy["samples"]
    if measured["epochs_to_target"] is None:
        yield from _without(("energy_to_target",), missed(measured), never=True)
    elif (joules := _joules_to_target(measured)) is None:
        yield from _without(("energy_to_target",), _unmetered(energy))
    else:
        yield Figure("energy_to_target", joules / 1e3, samples, notes=notes)
    if energy["joules"] is None:
        yield from _without(("full_energy",), _unmetered(energy))
    else:
        yield Figure("full_energy", energy["joules"] / 1e3, samples, notes=notes)


def _cut_short(measured: Measured, result: Result) -> str:
    """Why a training is not the full one of the spec; empty where it is."""
    done, all_epochs = len(measured["epochs"]), result.spec.training.epochs
    return "" if done == all_epochs else f"the training ended after {done} of {all_epochs} epochs"


def _rentals(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    hardware = hardware_of(result)
    rental = prices.rental(hardware.model, hardware.cores)
    if rental is None:
        yield from _without(("cost_to_target", "cost_full"), f"the price file has no machine with {hardware.short}")
        return
    notes = (f"{rental.name} at {rental.per_hour:g} {prices.currency} an hour as of {prices.as_of}",)

    def rent(metric: str, seconds: float) -> Figure:
        return Figure(metric, rental.per_hour * seconds / 3600, 1, notes=notes, unit=prices.currency)

    if measured["epochs_to_target"] is None:
        yield from _without(("cost_to_target",), missed(measured), never=True)
    else:
        yield rent("cost_to_target", measured["seconds_to_target"])
    if reason := _cut_short(measured, result):
        yield from _without(("cost_full",), reason)
    else:
        yield rent("cost_full", measured["seconds"])


def _electricity(measured: Measured, result: Result, prices: Prices) -> Iterator[Figure]:
    tariff, energy = prices.tariff, measured["energy"]
    if tariff is None:
        yield from _without(("electricity_to_target", "electricity_full"), "the price file has no tariff")
        return
    notes = (f"{tariff.name}: {tariff.per_kwh:g} {tariff.currency} per kWh", meter(energy))

    def bill(metric: str, joules: float | None) -> Figure:
        if joules is None:
            return Figure(metric, math.nan, 0, reason=_unmetered(energy))
        return Figure(metric, tariff.per_kwh * joules / JOULES_PER_KWH, 1, notes=notes, unit=tariff.currency)

    if measured["epochs_to_target"] is None:
        yield from _without(("electricity_to_target",), missed(measured), never=True)
    else:
        yield bill("electricity_to_target", _joules_to_target(measured))
    if reason := _cut_short(measured, result):
        yield from _without(("electricity_full",), reason)
    else:
        yield bill("electricity_full", energy["joules"])


DERIVE: dict[str, Callable[[Measured, Result, Prices], Iterator[Figure]]] = {
    "conformance": _conformance,
    "training": _training,
    "latency": _latency,
    "inference": _inference,
    "max_batch": _max_batch,
    "convergence": _convergence,
    "ceiling": _ceiling,
}


def _missing(phase: str, reason: str) -> Iterator[Figure]:
    return _without([metric.key for metric in METRICS if metric.phase == phase], reason)


def _finite(figure: Figure) -> Figure:
    """A file can hold times so short or numbers so large that a rate overflows; that is no figure."""
    if math.isfinite(figure.value) or figure.reason:
        return figure
    reason = "what was recorded gives no finite figure"
    return Figure(figure.metric, math.nan, figure.n, figure.batch_size, reason=reason)


OF_ALL_RANKS = ("energy_per_image", "energy_to_target", "full_energy", "cost_to_target", "cost_full",
                "electricity_to_target", "electricity_full")  # fmt: skip
"""What takes joules or prices of all ranks, of which a result has those of rank 0 only."""
OF_RANK_0 = ("power", "idle_power", "peak_memory", "full_memory")


def _of_ranks(figure: Figure, size: int) -> Figure:
    """What is known of rank 0 alone is marked so, and what would need the other ranks' too is withheld."""
    if size == 1 or figure.reason:
        return figure
    if figure.metric in OF_ALL_RANKS:
        reason = f"known for rank 0 only, and {size} ranks shared the work"
        return dataclasses.replace(figure, value=math.nan, reason=reason)
    return dataclasses.replace(figure, notes=(*figure.notes, "of rank 0")) if figure.metric in OF_RANK_0 else figure


def derive(result: Result, prices: Prices) -> list[Figure]:
    """All figures of a result in the order of PHASES, several of one metric (and batch size) where it was repeated.

    A phase that failed or was not run gives figures without a value, which say why.
    """
    figures: list[Figure] = []
    for phase in PHASES:
        outcomes = result.outcomes(phase)
        if not outcomes:
            figures += _missing(phase, f"the {phase} {NOT_RUN}")
        for outcome in outcomes:
            if outcome["status"] == "ok":
                derived = map(_finite, DERIVE[phase](outcome["measurements"], result, prices))
                figures += [_of_ranks(figure, ranks_of(result).size) for figure in derived]
                figures += [_startup(outcome)] if phase == "training" else []
            else:
                figures += _missing(phase, f"the {phase} phase failed: {outcome['reason']}")
    return figures
