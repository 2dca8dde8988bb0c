"""The phase that times single images."""

import math
import statistics
from collections.abc import Iterator

from aggregate.analysis.metrics import Figure, Metric, half_width, percentile
from aggregate.analysis.phase import Phase, Source, Work
from aggregate.analysis.plausibility import AN_INFERENCE_OF_ONE, Problems, apart, step_seconds, total_seconds
from shared_spec.results import stability
from shared_spec.results.format import Result
from shared_spec.results.measurements import Latency

METRICS = (
    Metric("latency_median", "latency", "Latency, median", "ms", 4,
           "batch 1, image in host memory to logits in host memory", warns=True),
    Metric("latency_p90", "latency", "Latency, p90", "ms", 4, "the same samples"),
    Metric("latency_p95", "latency", "Latency, p95", "ms", 4, "the same samples"),
    Metric("latency_p99", "latency", "Latency, p99", "ms", 4, "the same samples"),
    Metric("first_inference", "latency", "First inference, cold", "s", 3,
           "the first call of a fresh process, compilation in it; not one of the samples"),
    Metric("latency_interval", "latency", "Median known to, within a process", "%", 2,
           "half the width of its 95 % interval by order statistics"),
    Metric("latency_samples", "latency", "Latency samples", "", 4, "in each repeat; the median of the repeats"),
    Metric("device_latency_median", "latency", "Latency on the device, median", "ms", 4,
           "batch 1, image on the device to logits on the device; round images that lie there, none asked twice"),
)  # fmt: skip


def _derive(measured: Latency, source: Source) -> Iterator[Figure]:
    samples = measured.host_to_host_seconds
    unsteady = () if measured.steady else ("latencies had not become steady when sampling began",)
    for q, name in ((50, "latency_median"), (90, "latency_p90"), (95, "latency_p95"), (99, "latency_p99")):
        figure = percentile(name, samples, q)
        yield Figure(figure.metric, figure.value, figure.n, notes=unsteady, reason=figure.reason)
    yield Figure("first_inference", measured.first_inference_seconds, 1)
    interval = stability.quantile_interval(samples, 0.5)
    yield half_width("latency_interval", interval, measured.latency_median, len(samples))
    yield Figure("latency_samples", len(samples), len(samples))
    yield percentile("device_latency_median", measured.device_only_seconds, 50)


def _contradictions(measured: Latency, here: str, result: Result) -> Problems:
    host, device = measured.latency_median, statistics.median(measured.device_only_seconds)
    yield from apart(f"{here}/host_to_host_seconds", host, "on the device alone it is", device)
    warm = step_seconds(measured.warmup_blocks[-1:])
    yield from apart(f"{here}/warmup_blocks", warm, "when warm it is", host)


def _seconds(measured: Latency) -> float:
    samples = math.fsum(_windows(measured).values())
    return math.fsum([measured.first_inference_seconds, total_seconds(measured.warmup_blocks), samples])


def _windows(measured: Latency) -> dict[str, float]:
    return {
        "host_to_host_seconds": math.fsum(measured.host_to_host_seconds),
        "device_only_seconds": math.fsum(measured.device_only_seconds),
    }


def _work(measured: Latency, result: Result) -> Iterator[Work]:
    yield Work(AN_INFERENCE_OF_ONE, "device_only_seconds", statistics.median(measured.device_only_seconds))


PHASE = Phase(
    "latency", METRICS, _derive, _contradictions, _seconds, _windows, "latency_seconds", _work, "latency_median"
)
