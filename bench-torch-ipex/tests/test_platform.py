"""What the parent process knows of the platform before PyTorch is imported."""

import sys

import pytest

from bench_torch_ipex.platform import PLATFORM, worker_env
from shared_spec.platform import Threads


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP places are Linux's")
@pytest.mark.parametrize(
    ("threads", "places"),
    [
        (Threads(2, ((0, 1), (2, 3))), "{0,1},{2,3}"),  # two performance cores of two threads
        (Threads(3, ((0,), (1,), (6,))), "{0},{1},{6}"),
        (Threads(4), "cores"),  # ranks find theirs within their affinity
    ],
)
def test_each_thread_has_a_place_of_its_own(threads, places):
    env = worker_env("cpu", "stock", threads)
    assert (env["OMP_NUM_THREADS"], env["OMP_PLACES"]) == (str(threads.count), places)


def test_nothing_is_kept_compiled_between_processes() -> None:
    assert PLATFORM.program_caches("cpu", "ipex", {}) == []
