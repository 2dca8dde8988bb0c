"""A training whose clock, energy and accuracy are what a test says."""

from collections.abc import Callable

import numpy as np
from fake_platform.backend import FakeBackend

from shared_spec.backend import Handle
from shared_spec.data.dataset import Dataset
from shared_spec.results.quantities import Energy, EnergyPart


class Killed(Exception):
    """Stands for kill -9."""


class World:
    """A clock that device work moves, and a meter that counts 10 W by it."""

    def __init__(self, accuracy: Callable[[int], float] = lambda step: 0.0) -> None:
        self.now, self.metered_from = 1000.0, 0.0
        self.accuracy = accuracy
        self.kill_at: int | None = None
        self.power: float | None = 10.0
        self.beside: float | None = None  # what a meter of the memory counts, as a part of that

    def clock(self) -> float:
        return self.now

    def start(self) -> None:
        self.metered_from = self.now

    def stop(self) -> Energy:
        joules = None if self.power is None else self.power * (self.now - self.metered_from)
        return Energy(
            joules=joules,
            reason=None if joules is not None else "no permission",
            source="nvml-counter",
            scope="gpu 0",
            samples=1,
            beside=None
            if self.beside is None or joules is None
            else (EnergyPart(what="memory", joules=self.beside * joules, reason=None),),
        )


class TrainingBackend(FakeBackend):
    """A step takes 1 s and an inference batch 0.1 s of the world's clock; it is right as often as the world says."""

    world: World
    data: Dataset
    seen = 0

    def train_step(self, batch: np.ndarray, lr: float) -> np.ndarray:
        if self.world.kill_at == self.steps:
            raise Killed
        self.world.now += 1.0
        return super().train_step(batch, lr)

    def infer(self, batch: np.ndarray) -> Handle:
        self.world.now += 0.1
        count, start = len(self.data.test_labels), self.seen
        self.seen = (self.seen + len(batch)) % (-(-count // len(batch)) * len(batch))
        logits = np.zeros((len(batch), 100), np.float32)
        right = round(self.world.accuracy(self.steps) * count)
        for row in range(len(batch)):
            if start + row < count:
                label = self.data.test_labels[start + row]
                logits[row, label if start + row < right else (label + 1) % 100] = 1.0
        return logits
