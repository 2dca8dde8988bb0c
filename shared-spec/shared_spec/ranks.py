"""Several processes, the ranks, that train one model together: what the harness needs of them, in host arrays.

The transport is the engine's own (torch.distributed, mlx.core.distributed, tf.distribute); here stands only what is
built on it. With one rank every function returns its argument at once.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from shared_spec.errors import UserError

TIMEOUT_ENV = "DEIT_BENCH_RANK_TIMEOUT"
"""Seconds of silence after which a rank is given up; set by `run` for all ranks."""
DEFAULT_TIMEOUT = 300.0

EXIT_STALLED = 75
"""Exit status of a rank that ended itself because nothing had moved for the timeout (sysexits: temporary failure)."""


class RanksApart(Exception):
    """Ranks that should be identical are not: what they compute is no longer one training."""


@dataclass(frozen=True)
class World:
    """This process's place among the ranks, as the launcher's environment tells before any framework is loaded.

    Attributes:
        rank, size: of all ranks.
        local_rank, local_size: of those on this host.
        hosts: on how many hosts the ranks are.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    hosts: int = 1


def place_of(names: Sequence[str], environ: Mapping[str, str]) -> list[int]:
    """Numbers that a launcher has set: rank, size, and more sizes.

    Raises:
        UserError: one is missing or no number, or the rank is not below the size: another job has left them.
    """
    try:
        rank, size, *others = (int(environ[name]) for name in names)
    except (KeyError, ValueError):
        missing = [name for name in names if not environ.get(name, "").isdecimal()]
        raise UserError(f"{stale(names)} {', '.join(missing)} is missing or no number.") from None
    if not 0 <= rank < size or min([size, *others[1:]], default=1) < 1:
        raise UserError(f"{stale(names)} Rank {rank} of {size} cannot be.")
    return [rank, size, *others]


def stale(names: Sequence[str]) -> str:
    """What to say of a launcher's variables that do not fit: they are often left over from another job."""
    return (
        f"This environment says that a launcher has started this process as one of several ({', '.join(names)}); unless it "
        f"has, `unset {' '.join(names)}`."
    )


class Group(Protocol):
    """The ranks of a run, connected.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def describe(self) -> dict[str, Any]:
        """What connects them: "engine" and "transport" as short names, "hosts" as their number."""
        ...

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        """int32 [n], the same n on all ranks -> int32 [size, n], row r from rank r; waits for all of them.

        int32 because every engine moves it unchanged; `gathered` makes it do for other types.
        """
        ...


class Alone:
    """The group of one process."""

    rank, size = 0, 1

    def describe(self) -> dict[str, Any]:
        return {"engine": "none", "transport": "none", "hosts": 1}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        return words[None]


ALONE = Alone()


def alone(device: str) -> Group:
    """The group of a platform that has no other."""
    return ALONE


def timeout() -> float:
    """Seconds of silence after which this run gives a rank up; what an engine's own timeout is to be set to."""
    return float(os.environ.get(TIMEOUT_ENV, DEFAULT_TIMEOUT))


def slice_of(total: int, group: Group) -> slice:
    """This rank's rows of a global batch.

    Raises:
        ValueError: the ranks cannot share it evenly.
    """
    if total % group.size:
        raise ValueError(f"a batch of {total} cannot be shared evenly by {group.size} ranks")
    part = total // group.size
    return slice(group.rank * part, (group.rank + 1) * part)


def gathered(group: Group, array: np.ndarray) -> np.ndarray:
    """An array of the same shape and type on all ranks -> [size, *shape], bit for bit."""
    if group.size == 1:
        return array[None]
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    words = np.zeros(-(-data.size // 4), np.int32)
    words.view(np.uint8)[: data.size] = data
    rows = np.ascontiguousarray(group.all_gather(words)).view(np.uint8)[:, : data.size]
    return np.ascontiguousarray(rows).view(array.dtype).reshape(group.size, *array.shape)


def gathered_values(group: Group, value: Any) -> list[Any]:
    """The JSON value of each rank, in order of rank."""
    if group.size == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = gathered(group, np.array([text.size], np.int64))[:, 0]
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: text.size] = text
    rows = gathered(group, padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def agreed(group: Group, value: Any) -> Any:
    """Rank 0's JSON value, on all ranks."""
    return value if group.size == 1 else gathered_values(group, value if group.rank == 0 else None)[0]


def decided(group: Group, number: int) -> int:
    """Rank 0's integer, on all ranks: what has to be decided by a clock is decided by one clock."""
    return number if group.size == 1 else int(gathered(group, np.array([number], np.int64))[0, 0])


def check_same(group: Group, value: str, what: str) -> None:
    """Raise RanksApart, on all ranks alike, unless `value` is the same on all of them; `what` is named then."""
    if group.size == 1:
        return
    values = gathered_values(group, value)
    if different := [rank for rank, other in enumerate(values) if other != values[0]]:
        raise RanksApart(f"{what}: rank {different[0]} differs from rank 0")


def shared_arrays(group: Group, arrays: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Rank 0's arrays by name, on all ranks, one after the other; the other ranks pass None."""
    named = arrays or {}
    if group.size == 1:
        return dict(named)
    table = agreed(group, [[name, value.dtype.str, value.shape] for name, value in named.items()])
    return {
        name: np.asarray(gathered(group, named[name] if group.rank == 0 else np.zeros(tuple(shape), dtype))[0])
        for name, dtype, shape in table
    }


def check_batch(total: int, ranks: int, option: str) -> None:
    """Raise UserError unless `ranks` can share a global batch of `total` evenly."""
    if total % ranks:
        raise UserError(
            f"{option}: {ranks} ranks cannot share the global batch of {total} evenly; choose a number that divides "
            f"{total}, or --scaling weak."
        )


class Watchdog:
    """Ends this process when nothing has moved for too long: a rank that waits for a dead one may wait for ever."""

    def __init__(self, seconds: float, on_stall: Callable[[str], None]) -> None:
        self._seconds, self._on_stall = seconds, on_stall
        self._moved, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Something has moved."""
        self._moved.set()

    def _watch(self) -> None:
        while self._moved.wait(self._seconds):
            if self._ended.is_set():
                return
            self._moved.clear()
        self._on_stall(f"nothing moved for {self._seconds:.0f} s: a rank has died or hangs")
        os._exit(EXIT_STALLED)

    @contextlib.contextmanager
    def on_guard(self) -> Iterator[None]:
        """Watch as long as the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._moved.set()
            self._thread.join()
