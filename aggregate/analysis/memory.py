"""Peaks and parts of the memory that a phase took."""

from collections.abc import Iterator
from functools import cache

from aggregate.analysis.metrics import Figure, absent
from aggregate.analysis.plausibility import Problems
from shared_spec.results.format import Result
from shared_spec.results.quantities import PEAKS, Memory
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

MAX_DEVICE_BYTES = 2**40
"""Beyond the memory of any one device."""
WHOLE_PROCESS = ("nvml_process", "footprint_peak")
"""Figures of the system that hold at least the weights."""
FRAMEWORK_PARTS = {"device_peak": ("_peak",), "device_active": ("_active", "_current"), "device_cache": ("_cache",)}
"""How the name of a framework's own figure ends, by metric; the name of the framework comes before it."""
SYSTEM_PARTS = {
    "device_process": "nvml_process",
    "host_peak": "host_peak",
    "host_before_framework": "host_before_framework",
    "host_before_model": "host_before_model",
    "host_loader": "host_loader",
    "footprint_peak": "footprint_peak",
}
"""Names of the figures that no framework gives, by metric."""


def peak(metric: str, memory: Memory, result: Result, batch_size: int | None = None) -> Figure:
    """The figure that the result names as its headline, GiB."""
    if (headline := result.peak_memory(memory)) is None:
        names = " or ".join(result.headline_memory)
        return absent(metric, f"the result gives no {names}", batch_size=batch_size)
    name, measured = headline
    note = f"{name}: {PEAKS[name]}" if name in PEAKS else name
    return Figure(metric, measured / 2**30, 1, batch_size, notes=(note,))


def parts(memory: Memory, result: Result) -> Iterator[Figure]:
    """Every detail that a framework or system may give, GiB."""
    known = {name: value for name, value in memory.items() if value is not None}
    framework = {name: value for name, value in known.items() if name not in SYSTEM_PARTS.values()}
    for metric, ending in FRAMEWORK_PARTS.items():
        yield _part(metric, next((value for name, value in framework.items() if name.endswith(ending)), None), result)
    for metric, name in SYSTEM_PARTS.items():
        yield _part(metric, known.get(name), result)


def _part(metric: str, value: int | None, result: Result) -> Figure:
    if value is None:
        return absent(metric, f"{result.platform} gives no such figure here")
    return Figure(metric, value / 2**30, 1)


def contradictions(memory: Memory, here: str, result: Result) -> Problems:
    """Peaks too small for the weights, or too large for any machine: bytes that are kilobytes, or the reverse."""
    weights, installed = _bytes_of_weights(result.spec.content), result.environment.get("memory_bytes")
    for name, measured in memory.items():
        if measured is None or name not in (*PEAKS, *WHOLE_PROCESS, *result.headline_memory):
            continue
        most = 2 * installed if name == "host_peak" and type(installed) is int else MAX_DEVICE_BYTES
        if not weights <= measured <= max(most, weights):
            between = f"not between the weights' {weights:,} bytes and what a machine has"
            yield f"{here}/{name}", f"is {measured:,}: {between}"


@cache
def _bytes_of_weights(spec: Spec) -> int:
    return 4 * params.count(spec)
