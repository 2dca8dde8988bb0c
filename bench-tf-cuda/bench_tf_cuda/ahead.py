"""Training steps handed to threads, since TensorFlow's own calls keep the host waiting where a GPU then runs dry.

A copy to a GPU waits for all kernels that are queued when it is asked for, and the call that asks for it waits for the
copy. From one thread a step is therefore never queued behind another: its images, targets and learning rate each wait
for the step before. Here copies wait beside one another, some steps ahead, and steps are queued as their copies arrive.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import tensorflow as tf

STEPS = 3
"""Steps not yet queued on the GPU, at most: a copy waits for one or two of them, and one more has to be running."""
COPIES_A_STEP = 3
"""Images, targets and learning rate."""

Copy = Future[tf.Tensor]


class Ahead:
    """Copies by several threads; steps queued by one thread, in the order in which they were given."""

    def __init__(self) -> None:
        self._copiers = ThreadPoolExecutor(STEPS * COPIES_A_STEP, "copy to the GPU")
        self._launcher = ThreadPoolExecutor(1, "launch")
        self._launches: deque[Future[tf.Tensor]] = deque()

    def copy(self, put: Callable[[Any], tf.Tensor], value: Any) -> Copy:
        """`put(value)` in a thread; `value` must not change any more."""
        return self._copiers.submit(put, value)

    def launch(self, step: Callable[..., tf.Tensor], *copies: Copy) -> Future[tf.Tensor]:
        """`step` on the copies when they are there; waits while too many steps are ahead.

        Raises:
            Exception: what an earlier step raised.
        """
        self._launches.append(self._launcher.submit(lambda: step(*(copy.result() for copy in copies))))
        if len(self._launches) > STEPS:
            self._launches.popleft().result()
        return self._launches[-1]

    def settle(self) -> None:
        """Return when all steps given so far are queued on the GPU, behind which other work may then be queued.

        Raises:
            Exception: what the first of them raised that did not succeed; none is under way then either.
        """
        launches, self._launches = self._launches, deque()
        wait(launches)
        for launch in launches:
            launch.result()
