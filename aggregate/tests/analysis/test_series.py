"""What charts show of a run."""

from typing import Any

import pytest

from aggregate.analysis.answer import answers
from aggregate.analysis.merging import merged
from aggregate.analysis.series import standings
from aggregate.render.figures.bars import Bars, of_answer
from aggregate.render.figures.questions import ENERGY
from aggregate.render.figures.style import looks
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result, missed, outcome


def test_a_seed_that_misses_counts_as_never_in_the_chart_as_in_the_table() -> None:
    content = make_result("mlx", phases=FULL_PHASES, seeds=3)
    trainings = [o["measurements"] for o in content["phases"] if o["phase"] == "convergence"]
    missed(trainings[0])
    (run,) = as_runs(content)
    bars = of_answer("Time to target", answers([run])["target"])
    assert bars.standings[0].value == merged(run.figures["time_to_target", None])["value"]
    missed(trainings[1])
    bars = of_answer("Time to target", answers(as_runs(content))["target"])
    assert not bars.standings
    assert bars.without[0].startswith("A: 2 of 3 repeats gave no value: a target of 45.0% top-1 was not reached")


def metered(platform: str, scope: str, longer: int = 10, **more: Any) -> dict[str, Any]:
    """A result whose window takes `longer` times as long as an invented one's 10 s."""
    content = make_result(platform, **more)
    measured = outcome(content, "training")["measurements"]
    measured["window_blocks"] *= longer
    measured["energy"] |= {"scope": scope, "joules": longer * measured["energy"]["joules"]}
    return content


def test_figures_of_different_meters_stand_apart_and_short_windows_nowhere() -> None:
    board = metered("tf-cuda", "gpu 3, the whole board")
    short = metered("tf-cuda", "gpu 0, the whole board", longer=1, device_name="NVIDIA L4")
    runs = as_runs(metered("mlx", "package 0, without memory"), board, short)
    assert {kind: [s.run.letter for s in found] for kind, found in standings(runs, "power").items()} == {
        "rapl-package: package 0, without memory": ["A"],
        "rapl-package: gpu, the whole board": ["B"],
    }
    panels = [panel for panel in ENERGY.panels(runs, looks(runs)) if isinstance(panel, Bars)]
    power = next(bars for bars in panels if bars.title == "Power while training")
    assert [text.partition(":")[0] for text in power.without] == ["C"]
    assert "shorter than 60 s" in power.without[0]


def test_images_per_joule_are_the_inverse_of_joules_per_image() -> None:
    runs = as_runs(metered("mlx", "package 0"))
    (joules,), (images,) = (
        standings(runs, key)["rapl-package: package 0"] for key in ("energy_per_image", "images_per_joule")
    )
    assert images.value == pytest.approx(1 / joules.value)
    assert images.unit == "images/J"
