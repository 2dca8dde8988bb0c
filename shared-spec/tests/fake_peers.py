"""A benchmarks/peers.py over the fake backend: what the tests of duels run."""

import time
from typing import Any

import numpy as np
from fake_platform.backend import PLATFORM, FakeBackend

from shared_spec.dev import peers
from shared_spec.workload.spec import Spec


class Slow(FakeBackend):
    """Sleeps 20 ms a step; the fake backend itself takes next to nothing."""

    def train_step(self, batch: np.ndarray, lr: float) -> np.ndarray:
        time.sleep(0.02)
        return super().train_step(batch, lr)


class Wrong(Slow):
    """Another loss than ours."""

    def train_step(self, batch: np.ndarray, lr: float) -> np.ndarray:
        return super().train_step(batch, lr) * 1.1


def _made(kind: type[FakeBackend]) -> Any:
    def build(spec: Spec, device: str, precision: str) -> FakeBackend:
        print("what a framework prints must not be taken for an answer")
        return kind(spec, device, precision, "fake")

    return build


def _broken(spec: Spec, device: str, precision: str) -> FakeBackend:
    raise ImportError("no such framework")


PEERS = {
    "slow": peers.Peer(_made(Slow)),
    "wrong": peers.Peer(_made(Wrong)),
    "broken": peers.Peer(_broken),
    "unset": peers.Peer(_made(Slow), python=".venv-nobody-made"),
    "elsewhere": peers.Peer(_made(Slow), devices=("cuda",)),
}

if __name__ == "__main__":
    peers.main(PLATFORM, __file__, PEERS)
