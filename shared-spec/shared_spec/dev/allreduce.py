"""What the exchange of gradients costs a training step, beside the engine's own bare all-reduce in the same run.

Each platform's benchmarks/allreduce.py brings the engine's call and starts this on every rank.
"""

from collections.abc import Callable
from statistics import median

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Batch
from shared_spec.data.batches import soft_targets
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Stepper
from shared_spec.ranks import ALONE, Group
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

AllReduce = Callable[[int], Callable[[], None]]
"""Number of float32 values -> a call that adds up so many over the ranks and returns when it is done."""

SMALLER_SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 22)
"""Values; the last size is all parameters."""


def bare_seconds(group: Group, all_reduce: AllReduce, values: int, repeats: int) -> list[float]:
    """Seconds of each of `repeats` all-reduces that the ranks start together, the slowest rank's."""
    call = all_reduce(values)
    call()
    times = []
    for _ in range(repeats):
        ranks.decided(group, 0)
        start = monotonic()
        call()
        times.append(max(ranks.gathered_values(group, monotonic() - start)))
    return times


def _stepper(backend: Backend, spec: Spec, group: Group, batch: Batch) -> Stepper:
    """Training steps of a backend that has this group, on one and the same batch."""
    backend.group = group
    backend.load_params(params.initial(spec))
    return Stepper(lambda: backend.train_step(batch, 1e-4), backend.synchronize, spec.measuring, monotonic, group)


def report(make: Callable[[], Backend], spec: Spec, all_reduce: AllReduce, images: int, rounds: int) -> None:
    """Print, on rank 0, times by message size and those of steps with and without the exchange.

    Both kinds of step have the same batch of `images` a rank. They take turns, so that what else the machine does hits
    both alike, and all ranks do the same at the same time.
    """
    backend, local = make(), make()
    group = backend.group
    lines = [
        f"{'values':>12} {'MB':>8} {'median ms':>10} {'least ms':>9} {'GB/s':>6}   bare all-reduce, {group.describe()}"
    ]
    for values in (*SMALLER_SIZES, params.count(spec)):
        times = bare_seconds(group, all_reduce, values, 30 if values < 1 << 20 else 10)
        rate = 2 * (group.size - 1) / group.size * 4 * values / median(times) / 1e9  # bytes that cross a rank's link
        lines.append(
            f"{values:>12,} {4e-6 * values:>8.3f} {1e3 * median(times):>10.3f} {1e3 * min(times):>9.3f} {rate:>6.2f}"
        )
    pixels = np.random.default_rng(group.rank).integers(0, 256, (images, *[spec.data.image_size] * 2, 3), np.uint8)
    batch = backend.to_device(pixels, soft_targets(np.arange(images) % 100, 100, 0.1))
    shared, alone = _stepper(backend, spec, group, batch), _stepper(local, spec, ALONE, batch)
    step_times: dict[str, list[float]] = {"with": [], "without": []}
    for round_ in range(rounds + 1):
        for name, stepper in (("with", shared), ("without", alone)):
            ranks.decided(group, 0)
            seconds = stepper.block(1).seconds
            if round_:  # the first compiles
                step_times[name].append(seconds)
    for name, times in step_times.items():
        each = " ".join(f"{1e3 * time:.0f}" for time in times)
        lines.append(f"step {name} exchange, {images} images a rank: median {1e3 * median(times):.0f} ms of ({each})")
    added = sorted(1e3 * (a - b) for a, b in zip(step_times["with"], step_times["without"], strict=True))
    lines.append(
        f"what the exchange adds: median {median(added):.0f} ms of pairs from {added[0]:.0f} to {added[-1]:.0f}"
    )
    lines.append(f"what the engine tells of it, s: {backend.communication()}")
    if group.rank == 0:
        print("\n".join(lines), flush=True)
