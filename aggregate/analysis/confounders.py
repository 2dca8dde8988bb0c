"""What differs between the runs of a section besides the machine, and what of a difference the framework explains."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aggregate.analysis import ratios
from aggregate.analysis.merging import Run, effective_precision
from aggregate.analysis.ratios import Ratio
from aggregate.analysis.sections import same_hardware
from shared_spec.results.format import Result
from shared_spec.results.measurements import Training
from shared_spec.results.quantities import PEAKS

UNKNOWN = "not recorded"
SPELLED = {"mlx": "MLX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
"""Frameworks as they write themselves."""


@dataclass(frozen=True)
class Confounder:
    """One thing that differs.

    Attributes:
        aspect: what, in words: "operating system".
        values: what each run has, in words, and the letters of the runs that have it; at least two.
    """

    aspect: str
    values: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class SameHardware:
    """Two frameworks on the same device: what of a difference is the framework's.

    Attributes:
        hardware: the device.
        faster: the run that trains faster there.
        slower: the other.
        ratio: how many times as fast.
    """

    hardware: str
    faster: Run
    slower: Run
    ratio: Ratio


def system(result: Result) -> str:
    """Operating system and version."""
    environment = result.environment
    if distribution := environment.get("distribution"):
        return str(distribution)
    return f"{environment.get('system', UNKNOWN)} {environment.get('system_release', '')}".strip()


def framework(run: Run) -> str:
    """Framework and version, and that of Intel's extension."""
    backend = run.content.backend
    if backend is None:
        return UNKNOWN
    extension = backend.details.get("ipex_version")
    named = f"{SPELLED.get(backend.framework, backend.framework)} {backend.framework_version}"
    return f"{named} with IPEX {extension}" if extension and run.content.engine == "ipex" else named


def _detail(name: str) -> Callable[[Run], str]:
    return lambda run: str((run.content.backend.details.get(name) if run.content.backend else None) or UNKNOWN)


def _compile_mode(run: Run) -> str:
    return run.content.backend.compile_mode if run.content.backend else UNKNOWN


def _meters(run: Run) -> str:
    energies = [m.energy for m in run.measured(Training) if m.energy.joules is not None]
    found = [re.sub(r"^gpu \d+, the", "the GPU's", energy.scope) for energy in energies]
    return "; ".join(dict.fromkeys(found)) or "none"


def _memory(run: Run) -> str:
    peaks = [peak[0] for m in run.measured(Training) if (peak := run.content.peak_memory(m.memory))]
    found = [PEAKS.get(name, name) for name in peaks]
    return "; ".join(dict.fromkeys(found)) or UNKNOWN


def _profile(run: Run) -> str:
    return " and ".join(run.profiles)


def _virtual(run: Run) -> str:
    known = run.content.environment.get("virtual_machine")
    return UNKNOWN if known is None else "yes" if known else "no"


def _month(run: Run) -> str:
    return run.results[-1].content.created[:7]


ASPECTS: dict[str, Callable[[Run], str]] = {
    "operating system": lambda run: system(run.content),
    "framework": framework,
    "compilation": _compile_mode,
    "attention": _detail("attention"),
    "arithmetic": lambda run: effective_precision(run.result) or UNKNOWN,
    "data": lambda run: run.content.data.source,
    "what the energy is of": _meters,
    "peak memory": _memory,
    "amount measured": _profile,
    "virtual machine": _virtual,
    "month": _month,
}
"""What can differ, in the order it is told."""


def confounders(runs: Sequence[Run]) -> list[Confounder]:
    """What differs between runs, and how."""
    found = []
    for aspect, tell in ASPECTS.items():
        values: dict[str, list[str]] = {}
        for run in runs:
            values.setdefault(tell(run), []).append(run.letter)
        if len(values) > 1:
            found.append(Confounder(aspect, {value: tuple(letters) for value, letters in values.items()}))
    return found


def on_same_hardware(runs: Sequence[Run], metric: str = "training_throughput") -> list[SameHardware]:
    """The fastest against each other framework on every device that ran several."""
    found = []
    for hardware, members in same_hardware(runs):
        best_of: dict[tuple[str, str], tuple[float, Run]] = {}
        for run in members:
            values = [figure.value for figure in run.repeats(metric) if not figure.reason]
            if values and max(values) > best_of.get((run.content.platform, run.content.engine), (0.0, run))[0]:
                best_of[run.content.platform, run.content.engine] = max(values), run
        ordered = [run for _, run in sorted(best_of.values(), key=lambda pair: -pair[0])]
        found += [SameHardware(hardware, ordered[0], run, ratios.ratio(ordered[0], run, metric)) for run in ordered[1:]]
    return found
