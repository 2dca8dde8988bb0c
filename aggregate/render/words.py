"""How runs, factors and lists are said in sentences."""

import math
from collections import Counter
from collections.abc import Sequence

from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from aggregate.render.tables import number

FRAMEWORKS = {"mlx": "MLX", "tf-cuda": "TensorFlow", "torch-ipex": "PyTorch"}
"""Platforms by the name that their users know."""
ENGINES = {("torch-ipex", "ipex"): "PyTorch + IPEX"}
"""Where the engine is part of the name."""
LIKE = 1.005
"""Factors closer to 1 than this are as good as 1 to any reader."""
PLAIN_PERCENT = 1.5
"""Up to this factor people say per cent, above it times."""
WIDE = 0.05
"""Part of a factor that its interval may be wide, either way, before the reader is told."""


def framework(run: Run) -> str:
    """The framework as its users call it: "PyTorch + IPEX"."""
    c = run.content
    return ENGINES.get((c.platform, c.engine), FRAMEWORKS[c.platform])


def device(run: Run) -> str:
    """What ran: "AMD EPYC (2 cores)"."""
    model, *cores = run.hardware.parts
    ranks = [run.ranks.words] if run.ranks.words else []
    return f"{model} ({', '.join([*cores, *ranks])})" if cores or ranks else model


def name(run: Run) -> str:
    """What ran on what: "NVIDIA H200 with TensorFlow"."""
    synthetic = ", synthetic data" if run.content.data.source == "synthetic" else ""
    return f"{device(run)} with {framework(run)}{synthetic}"


def names(runs: Sequence[Run]) -> dict[str, str]:
    """The names of runs by letter; the letter stands behind those that are not told apart without."""
    counts = Counter(map(name, runs))
    return {run.letter: f"{name(run)} ({run.letter})" if counts[name(run)] > 1 else name(run) for run in runs}


def listed(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence: "A, B and C"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def rounded(value: float) -> str:
    """A factor or a per cent with three significant digits, without idle zeros: "99.1", "1.9", "291"."""
    text = number(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def times(factor: Ratio, *, better: str = "faster", as_good: str = "as fast") -> str:
    """A factor of at least about 1 as people say it: "12 % faster than", "1.9 times as fast as", "about as fast as".

    Without an interval there is no verdict, and the factor is all that is said: "1.02 times as fast as".
    """
    ratio = factor.ratio
    if not factor.verdict:
        return f"{rounded(ratio)} times {as_good} as"
    if factor.verdict == "too close to call" or ratio < LIKE:
        return f"about {as_good} as"
    if ratio < PLAIN_PERCENT:
        return f"{rounded(100 * (ratio - 1))} % {better} than"
    return f"{rounded(ratio)} times {as_good} as"


def interval(factor: Ratio) -> str:
    """The interval of a factor where it is wide enough to matter: "1.51 to 2.25 times"; else empty."""
    if not factor.verdict or math.isnan(factor.low) or factor.ratio >= 1e4:
        return ""
    if factor.high - factor.low <= 2 * WIDE * factor.ratio and factor.verdict != "too close to call":
        return ""
    return f"95 % interval {rounded(factor.low)} to {rounded(factor.high)}"
