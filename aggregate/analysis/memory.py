"""Peaks and parts of the memory that a phase took."""

from collections.abc import Iterator

from aggregate.analysis.metrics import Figure, absent
from aggregate.analysis.phase import Head
from aggregate.analysis.plausibility import Problems
from aggregate.analysis.result import Result
from shared_spec.workload import params

Memory = dict[str, int | None]
"""Bytes by name, as results.schema.json has them."""

MAX_DEVICE_BYTES = 2**40
"""Beyond the memory of any one device."""
PEAKS = {
    "mlx_peak": "peak of MLX's allocations, without its cache",
    "tf_peak": "peak of TensorFlow's device memory in use, not reserved",
    "host_peak": "high-water resident set of the whole process",
}
"""Figures that can stand for a phase's peak memory, and what each is."""
PARTS = {
    "device_peak": ("mlx_peak", "tf_peak"),
    "device_active": ("mlx_active", "tf_current"),
    "device_cache": ("mlx_cache",),
    "device_process": ("nvml_process",),
    "host_peak": ("host_peak",),
    "host_before_framework": ("host_before_framework",),
    "host_before_model": ("host_before_model",),
    "host_loader": ("host_loader",),
    "footprint_peak": ("footprint_peak",),
}
"""Names under which a result may have each detail of its memory, by metric."""
HEADLINE = {"mlx": ("mlx_peak", "host_peak"), "tf-cuda": ("tf_peak", "host_peak"), "torch-ipex": ("host_peak",)}
"""Per platform, the figures that can stand for its peak memory; the first that was measured does."""


def peak(metric: str, memory: Memory, result: Result, batch_size: int | None = None) -> Figure:
    """The figure that the result names as its headline, GiB."""
    names = HEADLINE[result.content["platform"]]
    for name in names:
        if (measured := memory.get(name)) is not None:
            return Figure(metric, measured / 2**30, 1, batch_size, notes=(f"{name}: {PEAKS[name]}",))
    return absent(metric, f"the result gives no {' or '.join(names)}", batch_size=batch_size)


def parts(memory: Memory, result: Result) -> Iterator[Figure]:
    """Every detail that a framework or system may give, GiB."""
    for metric, names in PARTS.items():
        known = [value for name in names if (value := memory.get(name)) is not None]
        if known:
            yield Figure(metric, known[0] / 2**30, 1)
        else:
            yield absent(metric, f"{result.content['platform']} gives no such figure here")


def contradictions(memory: Memory, here: str, head: Head) -> Problems:
    """Peaks too small for the weights, or too large for any machine: bytes that are kilobytes, or the reverse."""
    weights, installed = 4 * params.count(head.spec), head.content["environment"].get("memory_bytes")
    for name in PEAKS:
        if (measured := memory.get(name)) is None:
            continue
        most = 2 * installed if name == "host_peak" and type(installed) is int else MAX_DEVICE_BYTES
        if not weights <= measured <= max(most, weights):
            between = f"not between the weights' {weights:,} bytes and what a machine has"
            yield f"{here}/{name}", f"is {measured:,}: {between}"
