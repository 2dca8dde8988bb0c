"""Reads something again and again on a thread of its own."""

import threading
from collections.abc import Callable


class Sampler:
    """Calls `take` every `interval` seconds on a thread of its own, from start() until stop() has returned."""

    def __init__(self, take: Callable[[], None], interval: float) -> None:
        self.take, self.interval = take, interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when no call is under way and none will follow; nothing happens if start() was not called."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._ended.wait(self.interval):
            self.take()
