"""Rate of training batches on one core, made in the training thread and made ahead by the prefetch thread.

Run: python benchmarks/batches.py
"""

import os
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from shared_spec.batches import HostBatch, TrainingBatches
from shared_spec.cifar100 import synthetic
from shared_spec.spec import load_spec

BATCH_SIZE = 32
STEPS = 15_000


def images_per_second(batches: Iterator[HostBatch]) -> float:
    start = time.perf_counter()
    images = sum(len(batch.images) for batch in islice(batches, STEPS))
    return images / (time.perf_counter() - start)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    spec = load_spec()
    dataset = synthetic(spec)
    batches = TrainingBatches(spec, dataset.train_images, dataset.train_labels, BATCH_SIZE, seed=0)
    in_line = images_per_second(map(batches.batch, range(STEPS)))
    with batches.prefetched() as ahead:
        prefetched = images_per_second(ahead)
    print(f"batch {BATCH_SIZE}, {STEPS:,} steps, one core, NumPy {np.__version__}")
    print(f"in the training thread: {in_line:10,.0f} images/s")
    print(f"by the prefetch thread: {prefetched:10,.0f} images/s")


if __name__ == "__main__":
    main()
