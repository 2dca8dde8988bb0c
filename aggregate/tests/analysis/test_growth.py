"""How memory and time grow with the batch."""

from aggregate.analysis.growth import MemoryGrowth, Slowdown, memory_growth, slowdown
from aggregate.render import answer
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result


def test_growth_with_the_batch_is_said_and_what_is_steeper_is_found() -> None:
    linear, steep = [(32, 3.0), (64, 5.0), (192, 13.0)], [(32, 3.0), (64, 5.0), (128, 14.0)]
    assert memory_growth(linear) == MemoryGrowth(32, 192, 64.0, None)
    assert memory_growth(steep) == MemoryGrowth(32, 128, 1024 * 11 / 96, 64)
    assert memory_growth(linear[:1]) is None
    assert slowdown([(1, 10.0), (2, 12.0), (4, 11.8)]) is None
    assert slowdown([(1, 10.0), (2, 12.0), (4, 8.0)]) == Slowdown(4, 1.5, 2)


def test_growth_in_words() -> None:
    words = "from batch 32 to {} the peak memory grows by {} MiB an image"
    assert answer.of_memory(MemoryGrowth(32, 192, 64.0, None)) == words.format(192, "64.0")
    steeper = answer.of_memory(MemoryGrowth(32, 128, 117.3, 64))
    assert steeper == words.format(128, "117") + ", and more steeply from batch 64 on"
    slower = answer.of_slowdown("training", Slowdown(4, 1.5, 2))
    assert slower == "training time grows faster than the batch at 4: an image takes 1.50 times as long as at batch 2"
    (run,) = as_runs(make_result("mlx", phases=FULL_PHASES))
    assert answer.growth(run) == [words.format(192, "64.0")]
