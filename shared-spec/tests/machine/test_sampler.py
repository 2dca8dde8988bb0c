"""What reads again and again on a thread of its own."""

import threading

from shared_spec.machine.sampler import Sampler


def test_the_sampler_takes_on_a_thread_until_stopped() -> None:
    enough, taken = threading.Event(), []

    def take() -> None:
        taken.append(threading.current_thread())
        if len(taken) >= 3:
            enough.set()

    sampler = Sampler(take, 0.001)
    for _ in range(2):  # it can be started again
        taken.clear()
        enough.clear()
        sampler.start()
        assert enough.wait(timeout=30)
        sampler.stop()
        assert not taken[0].is_alive()
        assert taken[0] is not threading.current_thread()
    sampler.stop()
