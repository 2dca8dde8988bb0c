"""What a phase found and how sure it is, in a line for whoever watches; the report goes deeper."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared_spec.results import stability
from shared_spec.workload.spec import Spec

Measured = dict[str, Any]
"""Measurements of one outcome, as results.schema.json has them."""


def images_per_second(measured: Measured) -> float:
    """Images over total time of a training window."""
    return float(measured["batch_size"]) * stability.step_rate(measured["window_blocks"])


def latency_seconds(measured: Measured) -> float:
    """Median of the host-to-host latencies."""
    return float(np.median(measured["host_to_host_seconds"]))


def ceiling_flops(measured: Measured) -> float:
    """Best rate of matrix products, operations per second."""
    return max(2 * float(size["n"]) ** 3 * stability.step_rate(size["blocks"]) for size in measured["sizes"])


def training(measured: Measured, spec: Spec) -> str:
    found = stability.of_window(measured["window_blocks"], measured["steady"], spec.measuring)
    words = [f"{images_per_second(measured):,.4g} images/s"]
    if interval := stability.window_interval(measured["window_blocks"]):
        low, high = (measured["batch_size"] * rate for rate in interval)
        words.append(f"95 % within this process {low:,.4g} to {high:,.4g}")
    if (joules := measured["energy"]["joules"]) is not None:
        words.append(f"{joules / sum(seconds for _, seconds in measured['window_blocks']):.3g} W")
    return ", ".join([*words, *(found.objections or ("stable",))])


def latency(measured: Measured, spec: Spec) -> str:
    samples = measured["host_to_host_seconds"]
    middle, tail = (1e3 * value for value in np.percentile(samples, [50, 90]))
    unsteady = "" if measured["steady"] else ", latencies had not become steady when sampling began"
    return f"median {middle:.4g} ms, p90 {tail:.4g} ms of {len(samples):,} samples{unsteady}"


def inference(measured: Measured, spec: Spec) -> str:
    rates = {s["batch_size"]: s["batch_size"] * stability.step_rate(s["window_blocks"]) for s in measured["sizes"]}
    best = max(rates, key=rates.__getitem__)
    return f"at best {rates[best]:,.4g} images/s, at batch {best:,}"


def conformance(measured: Measured, spec: Spec) -> str:
    failed = [check["name"] for check in measured["checks"] if not check["passed"]]
    return f"FAILED {', '.join(failed)}" if failed else f"{len(measured['checks'])} checks passed"


def ceiling(measured: Measured, spec: Spec) -> str:
    return f"{ceiling_flops(measured) / 1e12:.4g} TFLOP/s"


def max_batch(measured: Measured, spec: Spec) -> str:
    return f"batch {measured['batch_size']:,}, search ended by {measured['ended_by']}"


def convergence(measured: Measured, spec: Spec) -> str:
    best, target = max(row["top1"] for row in measured["epochs"]), measured["target_top1"]
    rate = measured["images"] / measured["seconds"]
    if measured["epochs_to_target"] is None:
        missed = f"target of {target:.1%} NOT reached in {len(measured['epochs'])} epochs, best {best:.1%}"
        return f"{missed}, {rate:,.4g} images/s"
    when = f"in epoch {measured['epochs_to_target']} after {measured['seconds_to_target']:,.0f} s"
    return f"target of {target:.1%} reached {when}, best {best:.1%}, {rate:,.4g} images/s"


WORDS: dict[str, Callable[[Measured, Spec], str]] = {
    "conformance": conformance,
    "ceiling": ceiling,
    "training": training,
    "latency": latency,
    "inference": inference,
    "max_batch": max_batch,
    "convergence": convergence,
}


def of_phase(outcome: dict[str, Any], spec: Spec) -> str:
    """One line on an outcome; empty where the phase failed."""
    return WORDS[outcome["phase"]](outcome["measurements"], spec) if outcome["status"] == "ok" else ""
