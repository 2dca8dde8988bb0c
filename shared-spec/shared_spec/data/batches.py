"""Training batches: order, crop, flip and soft targets, bit-identical on every machine.

All randomness is raw Philox4x64-10 output (Salmon et al., SC 2011), a function of (seed, purpose, index)
alone: any step of any epoch can be made without those before it, and no NumPy version changes it.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared_spec.data.augmentation import crop_and_flip
from shared_spec.ranks import ALONE, Group, slice_of
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import Spec


def soft_targets(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Label-smoothed one-hot targets (arXiv 1512.00567, section 7), float32 [B, classes] from integer [B]."""
    off = smoothing / classes
    table = np.full((classes, classes), off, np.float32)
    np.fill_diagonal(table, 1.0 - smoothing + off)
    targets: np.ndarray = table[labels]
    return targets


@dataclass(frozen=True)
class HostBatch:
    """Images uint8 [B, S, S, 3] and soft targets float32 [B, classes], in host memory."""

    images: np.ndarray
    targets: np.ndarray


class TrainingBatches:
    """All batches of a training run by step number; of each, the rows of this rank.

    Args:
        images: uint8 [N, S, S, 3], at least spec.data.train_images of them.
        labels: integer [N].
        batch_size: of the global batch, which is the same whatever the number of ranks.

    Raises:
        ValueError: there are fewer images than the spec asks for, or than a batch takes, or the ranks cannot share
            a batch evenly.
    """

    def __init__(
        self, spec: Spec, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, group: Group = ALONE
    ) -> None:
        self.spec, self.batch_size, self.seed = spec, batch_size, seed
        self.rows = slice_of(batch_size, group)
        self.images, self.labels = images[: spec.data.train_images], labels[: spec.data.train_images]
        self.steps_per_epoch = spec.steps_per_epoch(batch_size)
        if len(self.images) < spec.data.train_images or not self.steps_per_epoch:
            raise ValueError(f"{len(self.images)} images for {spec.data.train_images} in batches of {batch_size}")
        self._epoch = -1

    @property
    def batch_bytes(self) -> int:
        """Bytes of this rank's rows of a batch on the host: images as uint8, targets as float32."""
        rows: int = self.rows.stop - self.rows.start
        return rows * (int(self.images[0].nbytes) + 4 * self.spec.model.classes)

    def _start_epoch(self, epoch: int) -> None:
        n = len(self.images)
        self._order = np.argsort(random_bits(self.seed, "order", epoch, n), kind="stable")
        self._bits = random_bits(self.seed, "augment", epoch, n)
        self._epoch = epoch

    def batch(self, step: int) -> HostBatch:
        """This rank's rows of the batch of training step `step`, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._start_epoch(epoch)
        first = within * self.batch_size
        chosen = slice(first + self.rows.start, first + self.rows.stop)
        index = self._order[chosen]
        images = crop_and_flip(self.images[index], self._bits[chosen], self.spec.data)
        targets = soft_targets(self.labels[index], self.spec.model.classes, self.spec.data.label_smoothing)
        return HostBatch(images, targets)

    def prefetched(self, first_step: int = 0) -> "Prefetcher":
        """Batches from `first_step` on, without end, made ahead by a thread."""
        return Prefetcher(self, first_step, self.spec.measuring.prefetch_batches)


class Prefetcher:
    """Iterates over a TrainingBatches from a step on, a bounded number of batches ahead; close it when done."""

    def __init__(self, batches: TrainingBatches, first_step: int, ahead: int) -> None:
        self._queue: queue.Queue[HostBatch | BaseException] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(batches, first_step), daemon=True)
        self._thread.start()

    def _work(self, batches: TrainingBatches, step: int) -> None:
        while not self._stop.is_set():
            item: HostBatch | BaseException
            try:
                item = batches.batch(step)
            except BaseException as error:  # handed to the consumer, who would otherwise wait for ever
                item = error
            self._queue.put(item)
            if isinstance(item, BaseException):
                return
            step += 1

    def __iter__(self) -> Iterator[HostBatch]:
        return self

    def __next__(self) -> HostBatch:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # no batch follows: who asks again is told again
            raise item
        return item

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()  # room for the put that the thread may be waiting in
            self._thread.join(0.01)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
