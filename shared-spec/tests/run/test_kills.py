"""Whole runs in processes of their own that are killed or stopped: nothing is lost, and nobody is left behind."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from fake_runs import asked, here, only_result, phase_process, quick, running, start, start_hanging, wait_for

from shared_spec import files
from shared_spec.results.format import CeilingDone

THREE = "ceiling,training,latency"


def test_killing_the_parent_loses_nothing_and_leaves_no_child(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    parent, child = start_hanging(spec_file, out)
    busy = quick(spec_file, out, phases=THREE)
    assert busy.returncode == 1
    assert "under way" in busy.stderr
    parent.kill()
    parent.communicate()
    wait_for(lambda: not running(child))
    assert not list(out.glob("*.json"))
    (kept,) = out.glob(".runs/*/01-ceiling-0.json")
    ceiling = files.read(kept)
    done = quick(spec_file, out, phases=THREE)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 phases" in done.stdout
    result = only_result(out)
    assert result["phases"][0] == CeilingDone.model_validate(ceiling).to_dict()
    assert result["resumed"] == 1


def test_killing_a_child_fails_its_phase_alone(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    parent, child = start_hanging(spec_file, out)
    os.kill(child, signal.SIGKILL)
    parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert [o["status"] for o in only_result(out)["phases"]] == ["ok", "failed", "ok"]


def test_ctrl_c_for_the_parent_alone_ends_cleanly(spec_file: Path, tmp_path: Path) -> None:
    parent, child = start_hanging(spec_file, tmp_path / "r")
    parent.send_signal(signal.SIGINT)
    _, error = parent.communicate(timeout=240)
    assert parent.returncode == 130
    assert "same command goes on" in error
    assert "Traceback" not in error
    wait_for(lambda: not running(child))  # killed, it is gone a moment later


@pytest.mark.parametrize("words", [(), ("--json-events",)])
def test_ctrl_c_on_a_terminal_reaches_all_processes_and_the_same_command_goes_on(
    spec_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A terminal sends SIGINT to parent and child alike."""
    out = tmp_path / "r"
    parent, child = start_hanging(spec_file, out, *words)
    os.killpg(parent.pid, signal.SIGINT)
    shown, error = parent.communicate(timeout=240)
    assert parent.returncode == 130
    assert "Traceback" not in error + shown
    assert "same command goes on" in error
    wait_for(lambda: not running(child))  # killed, it is gone a moment later
    if words:
        assert json.loads(shown.splitlines()[-1])["event"] == "stopped"
    done = quick(spec_file, out, phases=THREE)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 phases" in done.stdout


KILLS = 5


def test_a_full_training_killed_at_random_moments_ends_as_if_left_alone(
    spec_file: Path, tmp_path: Path, trained: tuple[Path, str]
) -> None:
    """SIGKILL from outside, to the parent and to the phase process in turns, while a checkpoint follows the other."""
    content = json.loads(spec_file.read_text())
    content["profiles"]["full"]["checkpoint_seconds"] = 0.02
    spec_file.write_text(json.dumps(content))
    out = tmp_path / "killed"
    random, words = np.random.default_rng(0), asked(spec_file, out, "convergence", "full")
    for turn in range(KILLS):
        before = checkpointed(out)
        parent = start(*words, FAKE_STEP_SECONDS="0.02")
        child = wait_for(lambda parent=parent: phase_process(parent.pid))
        if turn:  # the first may be killed before it has begun
            wait_for(lambda before=before: checkpointed(out) > before)
        time.sleep(random.uniform(0.0, 0.2))
        os.kill(parent.pid if turn % 2 else child, signal.SIGKILL)
        parent.communicate(timeout=240)
        wait_for(lambda child=child: not running(child))
    done = here(*words)
    assert done.returncode == 0, done.stderr
    newest = max(out.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    killed = files.read(newest)["phases"][0]["measurements"]
    alone = only_result(trained[0])["phases"][0]["measurements"]
    assert KILLS - 1 <= killed["resumed"] <= KILLS
    assert killed["final_params"] == alone["final_params"]
    assert killed["loss_trace"] == alone["loss_trace"]
    assert [row["top1"] for row in killed["evaluations"]] == [row["top1"] for row in alone["evaluations"]]


def checkpointed(out: Path) -> int:
    """When the checkpoint of the run in `out` was written, in nanoseconds; 0 where there is none."""
    return max((path.stat().st_mtime_ns for path in out.glob(".runs/*/convergence-0.safetensors")), default=0)
