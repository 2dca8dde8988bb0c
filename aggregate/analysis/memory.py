"""Peaks and parts of the memory that a phase took."""

from collections.abc import Iterator, Sequence
from functools import cache

from aggregate.analysis.metrics import FULL_TRAINING, WINDOW, Figure, absent
from aggregate.analysis.plausibility import Problems
from shared_spec.results.format import Result
from shared_spec.results.quantities import PEAKS, Memory
from shared_spec.workload import params
from shared_spec.workload.spec import Precision, Spec

MAX_DEVICE_BYTES = 2**40
"""Beyond the memory of any one device."""
FRAMEWORK_PARTS = {"device_peak": ("_peak",), "device_active": ("_active", "_current"), "device_cache": ("_cache",)}
"""How the name of a framework's own figure ends, by metric; the name of the framework comes before it."""
SYSTEM_PARTS = {
    "device_process": "nvml_process",
    "device_process_peak": "nvml_process_peak",
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


def whole_peak(metric: str, processes: Sequence[Memory], basis: str, result: Result) -> Figure:
    """The headline's largest figure among processes of one training, GiB; `basis` says what the training was."""
    peaks = [found for memory in processes if (found := result.peak_memory(memory))]
    if not peaks:
        return absent(metric, f"the result gives no {' or '.join(result.headline_memory)}")
    first = peaks[0][0]
    highest = max(value for name, value in peaks if name == first)
    note = f"{first}: {PEAKS[first]}" if first in PEAKS else first
    return Figure(metric, highest / 2**30, len(peaks), notes=(note, _of(basis)), basis=f"{basis}, {first}")


def _of(basis: str) -> str:
    if basis == FULL_TRAINING:
        return "the most of window, evaluation and full training"
    return f"of the {WINDOW} alone: no full training was run, which may take more"


def taken(metric: str, processes: Sequence[Memory], basis: str, result: Result) -> Figure:
    """The most memory that processes of one training took from the machine, by driver or system, GiB."""
    names = _booked_by(processes, result)
    found = [(memory[name] or 0, name, memory) for memory in processes for name in names if memory.get(name)]
    if not found:
        return absent(metric, f"{result.platform} gives no such figure here")
    highest, name, memory = max(found, key=lambda one: one[0])
    notes = [BOOKED[name], _of(basis)]
    if name.startswith("nvml") and (host := memory.get("host_peak")):
        notes.insert(1, f"of the GPU; the process had {host / 2**30:.2g} GiB of the host's memory besides")
    return Figure(metric, highest / 2**30, len(found), notes=tuple(notes), basis=basis)


def _booked_by(processes: Sequence[Memory], result: Result) -> tuple[str, ...]:
    """Whose figure it is: the driver's for a GPU with memory of its own, else the system's."""
    if result.device == "cuda":
        return ("nvml_process_peak", "nvml_process")
    if any(memory.get("footprint_peak") for memory in processes):
        return ("footprint_peak",)
    return ("host_peak",)


BOOKED = {
    "nvml_process_peak": "booked by NVIDIA's driver, polled: reserves, context and loaded code are in it",
    "nvml_process": "booked by NVIDIA's driver at the end: reserves, context and loaded code are in it",
    "footprint_peak": "footprint by macOS: resident, compressed and Metal's memory",
    "host_peak": "resident set by the system",
}
"""Figures of driver and system, and what each is."""


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
        if measured is None or name not in (*PEAKS, *BOOKED, *result.headline_memory):
            continue
        of_system = name in ("host_peak", "footprint_peak")
        most = 2 * installed if of_system and type(installed) is int else MAX_DEVICE_BYTES
        if not weights <= measured <= max(most, weights):
            between = f"not between the weights' {weights:,} bytes and what a machine has"
            yield f"{here}/{name}", f"is {measured:,}: {between}"


def too_many_images(batch_size: int, memory: Memory, here: str, result: Result) -> Problems:
    """A batch whose images alone, a byte for each value, would not have fitted into the memory that it took."""
    peak, side = result.peak_memory(memory), result.spec.content.data.image_size
    if peak and 3 * side**2 * batch_size > peak[1]:
        yield (
            f"{here}/batch_size",
            f"is {batch_size:,}: so many images alone exceed the {peak[1]:,} bytes of its {peak[0]}",
        )


@cache
def least_of_training(spec: Spec, precision: Precision, batch_size: int) -> int:
    """Bytes that a training cannot do without: what its backward pass starts from.

    Weights, gradients and two moments in float32; and of each block the inputs of its four linear layers, which the
    gradients of their weights are made of, in the precision of its products.
    """
    m = spec.model
    inputs = batch_size * m.tokens * (3 * m.dim + m.mlp_dim) * m.depth
    return 4 * _bytes_of_weights(spec) + (2 if precision == "bf16" else 4) * inputs


@cache
def _bytes_of_weights(spec: Spec) -> int:
    return 4 * params.count(spec)
