"""Rate of training batches on one core: made in the training thread, made ahead by the prefetch thread, and how it grows
with the batch and with the number of images.

Run: python benchmarks/batches.py
"""

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np

from shared_spec.data import synthetic
from shared_spec.data.batches import HostBatch, TrainingBatches
from shared_spec.measure.clock import monotonic
from shared_spec.workload.spec import Spec, load_spec

BATCH_SIZES = (32, 128, 512)
COUNTS = (12_500, 50_000, 200_000, 800_000)
IMAGES = 400_000
"""Images taken for each figure: whole epochs, at least two, so that shuffling is in it."""


def images_per_second(batches: Iterator[HostBatch], steps: int) -> float:
    start = monotonic()
    images = sum(len(batch.images) for batch in islice(batches, steps))
    return images / (monotonic() - start)


def rates(spec: Spec, images: np.ndarray, labels: np.ndarray, batch_size: int) -> tuple[float, float]:
    """Images a second in the training thread, and through the prefetch thread."""
    batches = TrainingBatches(spec, images, labels, batch_size, seed=0)
    steps = max(2, IMAGES // len(batches.images)) * batches.steps_per_epoch
    with batches.prefetched() as ahead:
        prefetched = images_per_second(ahead, steps)
    return images_per_second(map(batches.batch, range(steps)), steps), prefetched


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    standard = load_spec()
    dataset = synthetic.dataset(standard)
    print(
        f"one core, NumPy {np.__version__}; images/s\n  images  batch  in the training thread  by the prefetch thread"
    )
    cells = [(standard.data.train_images, size) for size in BATCH_SIZES]
    cells += [(count, standard.training.batch_size) for count in COUNTS if count != standard.data.train_images]
    for count, size in cells:
        spec = standard.changed(data=standard.data.changed(train_images=count))
        images = np.resize(dataset.train_images, (count, *dataset.train_images.shape[1:]))
        in_line, prefetched = rates(spec, images, np.resize(dataset.train_labels, count), size)
        print(f"{count:8,} {size:6} {in_line:23,.0f} {prefetched:23,.0f}")


if __name__ == "__main__":
    main()
