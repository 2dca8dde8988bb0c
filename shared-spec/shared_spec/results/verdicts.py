"""What a phase has measured and how sure it is, in a line for whoever watches; the report goes deeper."""

import numpy as np

from shared_spec.results import stability
from shared_spec.results.measurements import (
    Ceiling,
    Conformance,
    Convergence,
    Inference,
    Latency,
    MaxBatch,
    Measurements,
    Training,
)
from shared_spec.workload.spec import Spec


def training(measured: Training, spec: Spec) -> str:
    window = stability.of_window(measured.window_blocks, measured.steady, spec.measuring)
    words = [f"{measured.images_per_second:,.4g} images/s"]
    if interval := measured.images_per_second_interval:
        low, high = interval
        words.append(f"95 % within this process {low:,.4g} to {high:,.4g}")
    if (watts := measured.watts) is not None:
        words.append(f"{watts:.3g} W")
    return ", ".join([*words, *(window.objections or ("stable",))])


def latency(measured: Latency, spec: Spec) -> str:
    samples = measured.host_to_host_seconds
    middle, tail = (1e3 * value for value in np.percentile(samples, [50, 90]))
    unsteady = "" if measured.steady else ", latencies had not become steady when sampling began"
    return f"median {middle:.4g} ms, p90 {tail:.4g} ms of {len(samples):,} samples{unsteady}"


def inference(measured: Inference, spec: Spec) -> str:
    best = measured.fastest
    return f"at best {best.images_per_second:,.4g} images/s, at batch {best.batch_size:,}"


def conformance(measured: Conformance, spec: Spec) -> str:
    return f"FAILED {', '.join(measured.failed)}" if measured.failed else f"{len(measured.checks)} checks passed"


def of_checks(measured: Measurements) -> str:
    """What the checks of timed outputs found wrong, to stand behind a verdict; empty where they found nothing."""
    if isinstance(measured, Conformance) or not measured.failed_checks:
        return ""
    return f", CHECKS FAILED: {', '.join(check.name for check in measured.failed_checks)}"


def ceiling(measured: Ceiling, spec: Spec) -> str:
    return f"{measured.matmul_peak / 1e12:.4g} TFLOP/s"


def max_batch(measured: MaxBatch, spec: Spec) -> str:
    return f"batch {measured.batch_size:,}, search ended by {measured.ended_by}"


def convergence(measured: Convergence, spec: Spec) -> str:
    best, target, rate = measured.best_top1, measured.target_top1, measured.images_per_second
    if not measured.reached:
        missed = f"target of {target:.1%} NOT reached in {measured.epochs:.3g} epochs, best {best:.1%}"
        return f"{missed}, {rate:,.4g} images/s"
    when = f"after {measured.epochs_to_target:.3g} epochs, {measured.seconds_to_target:,.0f} s"
    return f"target of {target:.1%} reached {when}, best {best:.1%}, {rate:,.4g} images/s"
