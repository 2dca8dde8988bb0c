"""Full trainings with several seeds: each in the result as soon as it ends, and a run that stops between two."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fake_runs import asked, here, only_result, phase_process, start, wait_for

from shared_spec import files
from shared_spec.results import format

Outcome = dict[str, Any]


def words(spec_file: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (*asked(spec_file, out, "ceiling,convergence", "full"), *more)


def seeds(result: dict[str, Any]) -> list[int]:
    return [outcome["seed"] for outcome in result["phases"] if outcome["phase"] == "convergence"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_spec: Any) -> tuple[Path, Path]:
    """The spec file and results folder of a run that was killed in the second of three seeds."""
    folder = tmp_path_factory.mktemp("stopped")
    spec_file, out = folder / "spec", folder / "r"
    files.write(spec_file, tiny_spec.to_dict())
    parent = start(*words(spec_file, out, "--seeds", 3), FAKE_STEP_SECONDS="0.01")
    wait_for(lambda: list(out.glob("*.json")) and phase_process(parent.pid))
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate()
    return spec_file, out


def test_each_seed_is_in_the_result_as_soon_as_it_has_ended(stopped: tuple[Path, Path]) -> None:
    result = only_result(stopped[1])
    assert format.problems(result) == []
    assert seeds(result) == [0]
    assert result["missing"] == [
        {"phase": "convergence", "repeat": 1, "seed": 1}, {"phase": "convergence", "repeat": 2, "seed": 2}
    ]  # fmt: skip
    assert result["profile"]["content"]["convergence_repeats"] == 3


def test_a_stopped_run_is_closed_by_one_command_and_can_be_gone_on_with(stopped: tuple[Path, Path]) -> None:
    spec_file, out = stopped
    (path,) = out.glob("*.json")
    path.unlink()  # as if it had been stopped before its first seed was over, or moved away
    closed = here(*words(spec_file, out, "--seeds", 3, "--close"))
    assert closed.returncode == 0, closed.stderr
    assert "Missing: convergence 2 (seed 1), convergence 3 (seed 2)." in closed.stdout
    result = only_result(out)
    assert format.problems(result) == []
    assert (seeds(result), len(result["missing"])) == ([0], 2)
    done = here(*words(spec_file, out, "--seeds", 2))  # fewer than before: the run is the same
    assert done.returncode == 0, done.stderr
    whole = only_result(out)
    assert (whole["run_id"], seeds(whole), whole["missing"]) == (result["run_id"], [0, 1], [])
    assert whole["phases"][:2] == result["phases"]
    nothing = here(*words(spec_file, out, "--seeds", 2, "--close"))
    assert (nothing.returncode, "there is no unfinished run of this kind" in nothing.stderr) == (1, True)


def test_all_outcomes_say_when_and_on_which_machine(trained: tuple[Path, str]) -> None:
    result = only_result(trained[0])
    for outcome in result["phases"]:
        (one,) = outcome["ran"]
        assert result["created"] <= one["began"] <= one["ended"]
    assert len({one["machine"] for outcome in result["phases"] for one in outcome["ran"]}) == 1


def test_a_run_that_moved_says_so_for_each_phase(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = asked(spec_file, tmp_path / "r", "ceiling,training,latency")
    assert here(*line, FAKE_FAULT="bug:3").returncode == 1
    monkeypatch.setattr("shared_spec.machine.identity._system_mark", lambda: "another machine")
    assert here(*line).returncode == 0
    result = only_result(tmp_path / "r")
    ceiling, training, latency = (outcome["ran"][0]["machine"] for outcome in result["phases"])
    assert ceiling == latency != training
    assert {"ceiling ran on machine 1 of 2", "training 1 ran on machine 2 of 2"} <= set(result["warnings"])
