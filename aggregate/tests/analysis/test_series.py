"""What plots show of a run."""

import numpy as np

from aggregate.analysis.merging import merged
from aggregate.analysis.series import repeats
from aggregate.render.figures.rows import words
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result, missed


def test_a_seed_that_misses_counts_as_never_in_the_plot_as_in_the_table() -> None:
    content = make_result("mlx", phases=FULL_PHASES, seeds=3)
    trainings = [o["measurements"] for o in content["phases"] if o["phase"] == "convergence"]
    missed(trainings[0])
    (run,) = as_runs(content)
    two = repeats(run, "time_to_target")
    assert two.middle == max(two.values) == merged(run.figures["time_to_target", None])["value"]
    assert words(two, "time_to_target").endswith("(n = 2 of 3)")
    missed(trainings[1])
    one = repeats(as_runs(content)[0], "time_to_target")
    assert (len(one.values), words(one, "time_to_target")) == (1, "median: never  (n = 1 of 3)")
    assert np.isnan(one.middle)
    missed(trainings[2])
    assert words(repeats(as_runs(content)[0], "time_to_target"), "time_to_target") == "not reached"
