"""The one clock: nothing else reads time where a result is made."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


monotonic: Clock = time.perf_counter
"""The one clock: monotonic, nanosecond resolution."""
