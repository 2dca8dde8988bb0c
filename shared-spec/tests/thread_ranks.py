"""Ranks that are threads of one process, with a group of their own."""

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from shared_spec.ranks import Group


class Exchange:
    """Where ranks that are threads meet; when one has failed, nobody waits for it."""

    def __init__(self, size: int) -> None:
        self.size, self.failed = size, False
        self.turns: defaultdict[int, dict[int, np.ndarray]] = defaultdict(dict)
        self.changed = threading.Condition()

    def put(self, turn: int, rank: int, words: np.ndarray) -> np.ndarray:
        with self.changed:
            rows = self.turns[turn]
            rows[rank] = words
            self.changed.notify_all()
            self.changed.wait_for(lambda: len(rows) == self.size or self.failed, 60)
            if len(rows) < self.size:
                raise ConnectionError("another rank has failed")
            return np.stack([rows[rank] for rank in range(self.size)])

    def fail(self) -> None:
        with self.changed:
            self.failed = True
            self.changed.notify_all()


class ThreadGroup:
    """A rank that is a thread."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        self.rank, self.size, self.exchange, self.turn = rank, exchange.size, exchange, 0

    def describe(self) -> dict[str, Any]:
        return {"engine": "threads", "transport": "memory", "hosts": 1}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        assert words.dtype == np.int32
        self.turn += 1
        return self.exchange.put(self.turn, self.rank, words)


def on_ranks(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """What `work` returns, or the exception that it raises, on each of `size` ranks."""
    exchange = Exchange(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadGroup(rank, exchange))
        except Exception as error:
            found[rank] = error
            exchange.fail()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found
