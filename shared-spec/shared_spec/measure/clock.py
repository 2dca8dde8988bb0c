"""The one clock: nothing else reads time where a result is made.

`monotonic` is time.monotonic. time.perf_counter would be the very same clock: CLOCK_MONOTONIC on Linux,
mach_absolute_time on macOS, which tell nanoseconds and are never set back (`time.get_clock_info`). It is also one clock
for all processes of a machine since Python 3.10, so that a phase process can say how long ago its parent started it.
Neither counts the time in which the machine sleeps.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Returns seconds since some fixed moment."""

monotonic: Clock = time.monotonic


def utc_seconds() -> float:
    """Time of day, as seconds since 1970, to the millisecond: to match a window with what another device has logged."""
    return round(time.time(), 3)


def utc_now() -> datetime:
    """Date and time of day: for when something happened, never for how long it took."""
    return datetime.now(UTC)


def utc_text(moment: datetime | None = None) -> str:
    """A moment, left out this one, to the second as a result says it (results: Utc)."""
    return (moment or utc_now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
