"""All phases, and with them all metrics, in the order of the tables."""

from typing import Any

from aggregate.analysis.phase import Phase
from aggregate.analysis.phases import conformance, convergence, inference, latency, matmul_peak, max_batch, training

PHASES: tuple[Phase[Any], ...] = (
    conformance.PHASE,
    training.PHASE,
    latency.PHASE,
    inference.PHASE,
    max_batch.PHASE,
    convergence.PHASE,
    matmul_peak.PHASE,
)
PHASE: dict[str, Phase[Any]] = {phase.name: phase for phase in PHASES}
METRICS = tuple(metric for phase in PHASES for metric in phase.metrics)
METRIC = {metric.key: metric for metric in METRICS}
