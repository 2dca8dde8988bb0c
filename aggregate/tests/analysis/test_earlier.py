"""Results that newer ones take the place of, and results that only look so."""

from typing import Any

import pytest

from aggregate.analysis.comparison import compare
from aggregate.analysis.earlier import step_back
from aggregate.analysis.result import Result
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result
from shared_spec.results import format

OLD, NEW = "a" * 40, "b" * 40


def measured(day: int, commit: str | None, *, profile: str = "quick", number: int = 0, **asked: Any) -> dict[str, Any]:
    content = make_result("mlx", number=number or day, **asked)
    content["created"] = f"2026-01-{day:02}T00:00:00Z"
    content["software"]["git_commit"] = commit
    content["profile"] = {"name": profile, "content": content["spec"]["content"]["profiles"][profile]}
    return content


def read(*contents: dict[str, Any]) -> list[Result]:
    return [Result(f"{i}.json", format.parse(content)) for i, content in enumerate(contents)]


def back(*contents: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.result.file, each.newest.file) for each in step_back(read(*contents))[1]]


def test_older_code_on_the_same_machine_steps_back() -> None:
    assert back(measured(1, OLD), measured(2, NEW)) == [("0.json", "1.json")]
    assert back(measured(2, NEW), measured(1, OLD)) == [("1.json", "0.json")]
    assert back(measured(1, OLD), measured(2, NEW), measured(3, NEW)) == [("0.json", "2.json")]


@pytest.mark.parametrize(
    "other",
    [
        measured(2, OLD),
        measured(2, NEW, precision="bf16"),
        measured(2, NEW, device_name="Apple M4"),
        measured(2, NEW, framework_version="9.9"),
        measured(2, NEW, phases=("conformance", "training")),
        measured(2, NEW, data="synthetic"),
        measured(2, NEW, conformance=False),
    ],
    ids=["same code", "precision", "device", "framework", "fewer phases", "data", "not proved"],
)
def test_what_is_not_the_same_thing_measured_anew_takes_nobodys_place(other: dict[str, Any]) -> None:
    assert back(measured(1, OLD), other) == []


def test_less_never_takes_the_place_of_more() -> None:
    assert back(measured(1, OLD, profile="full"), measured(2, NEW)) == []
    assert back(measured(1, OLD), measured(2, NEW, profile="full", phases=FULL_PHASES)) == [("0.json", "1.json")]


def test_two_newer_results_of_one_commit_cover_an_older_one_together() -> None:
    first = measured(2, NEW, phases=("conformance", "ceiling", "training"))
    second = measured(3, NEW, phases=("latency", "inference"))
    assert back(measured(1, OLD), first, second) == [("0.json", "2.json")]


def test_all_brings_them_back_and_says_that_commits_are_merged() -> None:
    results = read(measured(1, OLD), measured(2, NEW))
    comparison = compare(results, [], PRICES)
    assert [len(run.results) for run in comparison.runs] == [1]
    assert [each.result.file for each in comparison.earlier] == ["0.json"]
    everything = compare(results, [], PRICES, everything=True)
    (run,) = everything.runs
    assert (len(run.results), everything.earlier) == (2, [])
    assert run.notes[0] == "2 commits together: aaaaaaa, bbbbbbb"
