"""Whatever of a result is missing, every form of the report is made of the rest."""

import itertools
from pathlib import Path

import pytest

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import Loaded, load
from aggregate.render import report
from aggregate.tests.factory import FULL_PHASES, PRICES, call, make_result, save

pytestmark = pytest.mark.usefixtures("unrendered")
WHOLE, OTHER = make_result("mlx", phases=FULL_PHASES), make_result("tf-cuda", phases=FULL_PHASES)
SUBSETS = [subset for n in range(len(FULL_PHASES) + 1) for subset in itertools.combinations(FULL_PHASES, n)]
FORMS = ("markdown", "csv", "json", "html")


def kept(content: dict[str, object], phases: tuple[str, ...]) -> dict[str, object]:
    outcomes = content["phases"]
    assert isinstance(outcomes, list)
    return {**content, "phases": [outcome for outcome in outcomes if outcome["phase"] in phases]}


def render(loaded: Loaded) -> None:
    assert not loaded.problems
    comparison = compare(loaded.results, loaded.problems, PRICES)
    for form in FORMS:
        assert report.as_text(comparison, [[] for _ in comparison.sections], form)


@pytest.mark.parametrize("number", range(4))
def test_any_phases_missing_alone_and_beside_a_whole_result(tmp_path: Path, number: int) -> None:
    """Every subset of the phases, a quarter of them in each of these tests."""
    whole = load([save(OTHER, tmp_path, "whole.json")])
    for subset in SUBSETS[number::4]:
        part = load([save(kept(WHOLE, subset), tmp_path, "part.json")])
        render(part)
        render(Loaded([*part.results, *whole.results], []))


@pytest.mark.parametrize("subset", [(), *((phase,) for phase in FULL_PHASES), FULL_PHASES[:-1], FULL_PHASES[1:]])
def test_the_command_line_with_phases_missing(tmp_path: Path, subset: tuple[str, ...]) -> None:
    """A table without rows, a fleet of one result."""
    path = save(kept(WHOLE, subset), tmp_path)
    done = call(path, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.exception
    assert "--details" in done.stdout
    assert "result.json" in (tmp_path / "report" / "comparison.md").read_text()
    assert call("check", path).exit_code in (0, 1)
