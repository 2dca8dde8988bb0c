"""All phases, and with them all metrics, in the order of the tables."""

from aggregate.analysis.phases import conformance, convergence, inference, latency, matmul_peak, max_batch, training

PHASES = (
    conformance.PHASE,
    training.PHASE,
    latency.PHASE,
    inference.PHASE,
    max_batch.PHASE,
    convergence.PHASE,
    matmul_peak.PHASE,
)
PHASE = {phase.name: phase for phase in PHASES}
METRICS = tuple(metric for phase in PHASES for metric in phase.metrics)
METRIC = {metric.key: metric for metric in METRICS}
