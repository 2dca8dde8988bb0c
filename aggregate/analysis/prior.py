"""How much figures differ between processes and between runs, measured beforehand: what few processes cannot tell.

All spreads are standard deviations of natural logarithms, so that 0.05 is about 5 %. The table below was made from the
results and duels that the repository carried on 2026-11-26, of CPUs on 2026-11-28; `python -m aggregate aa` shows what the
files it is given say of the same spreads. docs/method.md tells how the table was made.
"""

from dataclasses import dataclass

from aggregate.analysis.merging import Run

PROCESSES = 8.0
"""The spread between processes weighs as much as one measured with so many degrees of freedom. The 23 measured
spreads, fitted with a common weight, are likelier the larger it is; eight is about the least that they do not reject, and
too little weight is the safer error."""
RUNS = 4.0
"""The same of the spread between runs, which has been seen in fewer settings."""


@dataclass(frozen=True)
class Parts:
    """How a process's own series varies, cut into twenty consecutive parts.

    Attributes:
        sd: spread of the parts.
        lag: correlation of one part with the next.
    """

    sd: float
    lag: float


@dataclass(frozen=True)
class Prior:
    """Spreads of one metric on one kind of platform.

    Attributes:
        process: between processes of a run.
        run: between runs, what processes explain taken off.
        source: where the two come from.
        parts: within a process; None where it has no series, or one too short to say.
    """

    process: float
    run: float
    source: str
    parts: Parts | None = None


CLASSES = ("cpu", "gpu-xla", "gpu-mlx")
"""CPUs with any framework; GPUs that run a compiled program of XLA; GPUs that MLX feeds op by op, which wait for the host."""
TABLE = {
    ("cpu", "training_throughput"): Prior(
        0.047, 0.023,
        "processes: 10 in duels (7 degrees of freedom) and 15 of results (10); runs: half of it, 3 results against duels show less",
        Parts(0.013, -0.13),
    ),
    ("cpu", "latency_median"): Prior(
        0.057, 0.028, "processes: 10 in duels (7); runs: half of it, 3 pairs show less", Parts(0.0089, -0.05)
    ),
    ("cpu", "latency_p90"): Prior(0.057, 0.028, "borrowed from the median", Parts(0.051, -0.14)),
    ("cpu", "inference_reference"): Prior(0.047, 0.023, "borrowed from training"),
    ("cpu", "full_throughput"): Prior(0.047, 0.023, "borrowed from training"),
    ("cpu", "target_crossing"): Prior(0.080, 0.040, "processes: borrowed from gpu-mlx; runs: half of it"),
    ("gpu-xla", "training_throughput"): Prior(
        0.0052, 0.014, "processes: 5 of a result and 5 in duels (7); runs: 1 pair of results, 1 result against duels",
        Parts(0.0022, -0.16),
    ),
    ("gpu-xla", "latency_median"): Prior(
        0.071, 0.035, "processes: 8 of a result and 4 in duels (10); runs: half of it, 1 pair shows less", Parts(0.066, 0.37)
    ),
    ("gpu-xla", "latency_p90"): Prior(0.044, 0.044, "processes: 8 of a result (7); runs: 1 pair", Parts(0.071, 0.20)),
    ("gpu-xla", "inference_reference"): Prior(
        0.00093, 0.014, "processes: 5 of a result (4); runs: borrowed from training, 1 pair shows less"
    ),
    ("gpu-xla", "full_throughput"): Prior(0.070, 0.054, "borrowed: 1 pair of processes and 1 of runs of gpu-mlx"),
    ("gpu-xla", "target_crossing"): Prior(0.080, 0.048, "borrowed: 1 pair of processes and 1 of runs of gpu-mlx"),
    ("gpu-mlx", "training_throughput"): Prior(
        0.038, 0.11, "processes: 8 of a result and 6 in duels (11); runs: 2 pairs", Parts(0.089, 0.38)
    ),
    ("gpu-mlx", "latency_median"): Prior(
        0.057, 0.12, "processes: 8 of a result and 6 in duels (11); runs: 2 pairs", Parts(0.10, 0.36)
    ),
    ("gpu-mlx", "latency_p90"): Prior(0.025, 0.11, "processes: 8 of a result (7); runs: 2 pairs", Parts(0.095, 0.44)),
    ("gpu-mlx", "inference_reference"): Prior(
        0.22, 0.12, "processes: 5 of a result (4); runs: borrowed from latency, 2 pairs of its own show less"
    ),
    ("gpu-mlx", "full_throughput"): Prior(
        0.070, 0.11, "processes: 1 pair of seeds; runs: borrowed from training, of its own there is 1 pair (0.054)"
    ),
    ("gpu-mlx", "target_crossing"): Prior(
        0.080, 0.11, "processes: 1 pair of seeds; runs: borrowed from training, of its own there is 1 pair (0.048)"
    ),
}  # fmt: skip
"""By class and metric. Metal is taken for gpu-mlx unseen: no Mac has been measured."""


def class_of(run: Run) -> str:
    """The one of CLASSES that a run belongs to."""
    if run.hardware.kind == "cpu":
        return "cpu"
    return "gpu-mlx" if run.content.platform == "mlx" else "gpu-xla"


def prior_of(kind: str, metric: str) -> Prior:
    """Spreads of a metric on a class of platforms; of a metric without any the widest that the class has."""
    if known := TABLE.get((kind, metric)):
        return known
    of_class = [prior for (of, _), prior in TABLE.items() if of == kind]
    widest = max(prior.process for prior in of_class), max(prior.run for prior in of_class)
    return Prior(*widest, "never measured: the widest of the class")
