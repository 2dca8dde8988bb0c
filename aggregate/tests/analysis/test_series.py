"""What charts show of a run."""

import pytest

from aggregate.analysis.answer import answers
from aggregate.analysis.merging import merged
from aggregate.analysis.series import standings
from aggregate.render.figures.bars import of_answer
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result


def test_a_seed_that_misses_counts_as_never_in_the_chart_as_in_the_table() -> None:
    content = make_result("mlx", phases=FULL_PHASES, seeds=3)
    trainings = [o["measurements"] for o in content["phases"] if o["phase"] == "convergence"]
    trainings[0] |= {"epochs_to_target": None, "seconds_to_target": None}
    (run,) = as_runs(content)
    bars = of_answer("Time to target", answers([run])["target"])
    assert bars.standings[0].value == merged(run.figures["time_to_target", None])["value"]
    trainings[1] |= {"epochs_to_target": None, "seconds_to_target": None}
    bars = of_answer("Time to target", answers(as_runs(content))["target"])
    assert not bars.standings
    assert bars.without[0].startswith("A: 2 of 3 repeats gave no value: a target of 45.0% top-1 was not reached")


def test_figures_of_different_meters_stand_apart() -> None:
    a, b = make_result("mlx"), make_result("tf-cuda")
    for outcome in b["phases"]:
        if outcome["phase"] == "training":
            outcome["measurements"]["energy"]["scope"] = "gpu 3, the whole board"
    runs = as_runs(a, b)
    assert {kind: [s.run.letter for s in found] for kind, found in standings(runs, "power", apart=True).items()} == {
        "rapl-package: both packages, without memory": ["A"],
        "rapl-package: gpu, the whole board": ["B"],
    }
    assert list(standings(runs, "power")) == [""]


def test_images_per_joule_are_the_inverse_of_joules_per_image() -> None:
    runs = as_runs(make_result("mlx"))
    (joules,), (images,) = (standings(runs, key)[""] for key in ("energy_per_image", "images_per_joule"))
    assert images.value == pytest.approx(1 / joules.value)
    assert images.unit == "images/J"
