"""Duels with public implementations, on the fake backend: turns, ratios, and what ends a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared_spec.dev import peers
from shared_spec.workload.spec import Spec

TESTS = Path(__file__).parents[1]


@pytest.fixture
def run(tiny_spec: Spec, tmp_path: Path):  # type: ignore[no-untyped-def]
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(tiny_spec.to_dict()))

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        line = [sys.executable, str(TESTS / "fake_peers.py"), "--spec", str(path), "--rounds", "3", *words]
        return subprocess.run(
            line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False
        )

    return command


def test_ratio_is_the_geometric_mean_with_an_interval_around_it() -> None:
    assert peers.ratio([(1.0, 2.0)] * 5) == pytest.approx((2, 2, 2))
    noise = np.random.default_rng(1).lognormal(0, 0.1, 40)
    centre, low, high = peers.ratio([(1.0, 1.5 * x) for x in noise])
    assert low < centre < high
    assert low < 1.5 < high
    assert high / low < 1.1


def test_a_duel_is_written_and_shown(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    done = run("--peer", "slow", "--task", "train", "--precision", "fp32", "--out", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    (duel,) = content["duels"]
    assert duel["ratio"] > 5
    assert len(duel["step_seconds"]) == 3
    assert all(theirs > 0.02 for _, theirs in duel["step_seconds"])
    assert duel["env"] == {"FAKE_THREADS": "2"}
    assert duel["ours"]["details"]["threads"] == "2"
    assert "| train | fp32 | 4 | slow (1.0) |" in done.stdout
    assert str(Path.home()) not in out.read_text()


def test_what_a_file_holds_is_kept_and_the_same_duel_replaced(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    words = ("--peer", "slow", "--task", "latency", "--precision", "fp32", "--out", str(out))
    assert run(*words).returncode == 0
    content = json.loads(out.read_text())
    (duel,) = content["duels"]
    out.write_text(json.dumps({**content, "duels": [{**duel, "ratio": -1.0}, {**duel, "precision": "bf16"}]}))
    done = run(*words)
    assert done.returncode == 0, done.stderr
    kept, replaced = json.loads(out.read_text())["duels"]
    assert kept == {**duel, "precision": "bf16"}
    assert replaced["precision"] == "fp32"
    assert replaced["ratio"] > 0


@pytest.mark.parametrize(
    ("peer", "words"),
    [("wrong", "computes something else"), ("broken", "no such framework"), ("unset", "make peers-")],
)
def test_what_is_no_peer_is_told_in_a_sentence(run, peer: str, words: str) -> None:  # type: ignore[no-untyped-def]
    done = run("--peer", peer, "--task", "train", "--precision", "fp32")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_one_peer_that_fails_does_not_take_the_others_along(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    words = ("--peer", "broken", "--peer", "slow", "--task", "latency", "--precision", "fp32", "--out", str(out))
    done = run(*words)
    assert done.returncode == 1
    assert "1 of the duels did not take place: broken, latency, fp32:" in done.stderr
    assert [duel["peer"] for duel in json.loads(out.read_text())["duels"]] == ["slow"]


def test_a_peer_of_another_device_is_left_out(run) -> None:  # type: ignore[no-untyped-def]
    done = run("--peer", "elsewhere", "--precision", "fp32")
    assert done.returncode == 0
    assert "elsewhere" not in done.stdout
