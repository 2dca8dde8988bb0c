"""How runs, factors and lists are said in sentences."""

import re
from collections import Counter
from collections.abc import Sequence

from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from aggregate.render.tables import PERCENT_UP_TO, number

FRAMEWORKS = {"mlx": "MLX", "tf-cuda": "TensorFlow", "torch-ipex": "PyTorch"}
"""Platforms by the name that their users know."""
ENGINES = {("torch-ipex", "ipex"): "PyTorch + IPEX"}
"""Where the engine is part of the name."""
REASONS = {
    "the convergence phase was not run": "no full training was run",
    "the max_batch phase was not run": "it was not searched",
    **{f"the {phase} phase was not run": "not measured" for phase in ("training", "latency", "inference")},
}
"""Reasons of the tables, in words that need no knowledge of the program."""
LIKE = 1.005
"""Factors closer to 1 than this are as good as 1 to any reader."""
WIDE = 0.05
"""Part of a factor that its interval may be wide, either way, before the reader is told."""

NAMED = 6
"""Runs that are named by their letters where figures are lacking; more are counted."""
PRICE_OPTION = "--machine-price"
NO_PRICE = f"no price of it is known; {PRICE_OPTION} takes yours"
OWN_MEMORY = re.compile(r" \d+ ?GB( HBM\w+)?$")
"""How the name of a GPU ends that says its memory."""


def framework(run: Run) -> str:
    """The framework as its users call it: "PyTorch + IPEX"."""
    c = run.content
    return ENGINES.get((c.platform, c.engine), FRAMEWORKS[c.platform])


def device(run: Run) -> str:
    """What ran: "AMD EPYC (2 cores)"."""
    model, *cores = run.hardware.parts
    model = OWN_MEMORY.sub("", model)
    ranks = [run.ranks.words] if run.ranks.words else []
    return f"{model} ({', '.join([*cores, *ranks])})" if cores or ranks else model


def name(run: Run) -> str:
    """What ran on what: "TensorFlow on NVIDIA H200"."""
    synthetic = ", synthetic data" if run.content.data.source == "synthetic" else ""
    return f"{framework(run)} on {device(run)}{synthetic}"


def names(runs: Sequence[Run]) -> dict[str, str]:
    """The names of runs by letter; the letter stands behind those that are not told apart without."""
    counts = Counter(map(name, runs))
    return {run.letter: f"{name(run)} ({run.letter})" if counts[name(run)] > 1 else name(run) for run in runs}


def listed(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence: "A, B and C"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def whom(letters: Sequence[str], runs: int) -> str:
    """Some of so many runs: "A, C and D", or "30 of the 46" where these are more than anybody reads."""
    return listed(letters) if len(letters) <= NAMED else f"{len(letters)} of the {runs:,}"


def measured(value: float, unit: str) -> str:
    """A value in a sentence, three digits or all of a whole number: "6,539 images/s", "0.986 ms"."""
    text = f"{value:,.0f}" if abs(value) >= 100 else number(value, 3)
    return f"{text} {unit}".strip()


def why(reason: str) -> str:
    """A reason of the tables in words that need no knowledge of the program."""
    return NO_PRICE if PRICE_OPTION in reason else REASONS.get(reason, reason)


def covers(kind: str) -> str:
    """What a figure of a kind covers: "nvml-counter: gpu, the whole board" is "the whole GPU board"."""
    scope = kind.partition(": ")[2] or kind
    return "the whole GPU board" if scope == "gpu, the whole board" else scope


def rounded(value: float) -> str:
    """A factor or a per cent with three significant digits, without idle zeros: "99.1", "1.9", "291"."""
    text = number(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def times(factor: Ratio, *, better: str = "faster", as_good: str = "as fast") -> str:
    """A factor of at least about 1 as people say it: "12 % faster than", "1.9 times as fast as", "about as fast as".

    Without an interval there is no verdict, and the factor is all that is said: "1.02 times as fast as". A wide interval
    stands behind its factor: "1.95 (1.43 to 2.66) times as fast as".
    """
    ratio = factor.ratio
    if not factor.verdict and rounded(ratio) != "1":
        return f"{rounded(ratio)} times {as_good} as"
    if not factor.verdict or factor.verdict == "too close to call" or ratio < LIKE:
        return f"about {as_good} as"
    if ratio < PERCENT_UP_TO:
        low, high = (rounded(100 * (end - 1)) for end in (factor.low, factor.high))
        between = f" ({low} to {high})" if _wide(factor) else ""
        return f"{rounded(100 * (ratio - 1))}{between} % {better} than"
    between = f" ({rounded(factor.low)} to {rounded(factor.high)})" if _wide(factor) else ""
    return f"{rounded(ratio)}{between} times {as_good} as"


def _wide(factor: Ratio) -> bool:
    """Whether the interval of a factor is so wide that a reader must know."""
    return factor.high - factor.low > 2 * WIDE * factor.ratio
