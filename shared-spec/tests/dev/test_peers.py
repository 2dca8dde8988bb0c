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
        script = [sys.executable, str(TESTS / "fake_peers.py")]
        line = [*script, "--spec", str(path), "--pairs", "2", "--rounds", "2", *words]
        return subprocess.run(
            line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False
        )

    return command


def test_ratio_is_the_geometric_mean_with_an_interval_between_pairs_of_processes() -> None:
    assert peers.ratio([[(1.0, 2.0)] * 5] * 3) == pytest.approx((2, 2, 2))
    covered, rng = 0, np.random.default_rng(1)
    for _ in range(400):
        process, turn = rng.lognormal(0, 0.05, 3), rng.lognormal(0, 0.01, (3, 4))
        _, low, high = peers.ratio(
            [[(1.0, 1.5 * p * t) for t in turns] for p, turns in zip(process, turn, strict=True)]
        )
        assert low is not None
        assert high is not None
        covered += low < 1.5 < high
    assert 0.92 < covered / 400 < 0.98  # a bootstrap over all turns covers it in about half of the draws


def test_one_pair_of_processes_has_a_ratio_and_no_interval() -> None:
    assert peers.ratio([[(1.0, 2.0), (1.0, 2.2)]]) == (pytest.approx(np.sqrt(4.4)), None, None)


def test_the_best_peer_counts_task_by_task() -> None:
    named = {"precision": "fp32", "batch_size": 1, "cap": None}
    duels = [
        {"peer": peer, "task": task, "ratio": ratio} | named
        for peer, task, ratio in (
            ("a", "train", 1.2),
            ("b", "train", 1.1),
            ("a", "latency", 0.9),
            ("b", "latency", 2.0),
        )
    ]
    assert peers.best([*duels, duels[0] | {"cap": "avx2"}]) == [duels[1], duels[2], duels[0] | {"cap": "avx2"}]


def test_a_cap_is_asked_of_both_and_kept_apart(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    words = ("--peer", "slow", "--task", "latency", "--precision", "fp32", "--out", str(out))
    assert run(*words, "--cap", "avx2").returncode == 0
    (capped,) = json.loads(out.read_text())["duels"]
    assert capped["env"] == {"FAKE_THREADS": "2", "FAKE_GRAPHS": "0", **peers.CAPS["avx2"]}
    assert capped["cap"] == "avx2"
    assert peers._key(capped) != peers._key(capped | {"cap": None})


def test_a_duel_is_written_and_shown(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    done = run("--peer", "slow", "--task", "train", "--precision", "fp32", "--out", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    (duel,) = content["duels"]
    assert duel["ratio"] > 5
    assert np.array(duel["step_seconds"]).shape == (2, 2, 2)  # pairs, turns, sides
    assert all(theirs > 0.02 for turns in duel["step_seconds"] for _, theirs in turns)
    assert duel["env"] == {"FAKE_THREADS": "2"}
    assert duel["ours"]["details"]["threads"] == "2"
    assert "| train | fp32 | 4 | slow (1.0) |" in done.stdout
    assert str(Path.home()) not in out.read_text()


def test_a_peer_that_fails_takes_no_other_along_and_a_file_keeps_what_it_holds(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "peers.json"
    words = ("--task", "latency", "--precision", "fp32", "--out", str(out))
    done = run("--peer", "broken", "--peer", "slow", *words)
    assert done.returncode == 1
    assert "1 of the duels did not take place: broken, latency, fp32:" in done.stderr
    assert "no such framework" in done.stderr
    assert "Traceback" not in done.stderr
    content = json.loads(out.read_text())
    (duel,) = content["duels"]
    assert duel["peer"] == "slow"

    out.write_text(json.dumps({**content, "duels": [{**duel, "ratio": -1.0}, {**duel, "precision": "bf16"}]}))
    done = run("--peer", "slow", *words)
    assert done.returncode == 0, done.stderr
    kept, replaced = json.loads(out.read_text())["duels"]
    assert kept == {**duel, "precision": "bf16"}
    assert replaced["precision"] == "fp32"
    assert replaced["ratio"] > 0


def test_what_is_no_peer_is_told_in_a_sentence_and_one_of_another_device_is_left_out(run) -> None:  # type: ignore[no-untyped-def]
    peers_asked = ("--peer", "wrong", "--peer", "broken", "--peer", "unset", "--peer", "elsewhere")
    done = run(*peers_asked, "--task", "train", "--precision", "fp32")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if ", train, fp32: " in line]
    for peer, words in (
        ("wrong", "computes something else"),
        ("broken", "no such framework"),
        ("unset", "make peers-"),
    ):
        assert any(line.startswith(f"{peer}, train") and words in line for line in sentences)
    assert "3 of the duels did not take place" in done.stderr
    assert "elsewhere" not in done.stdout + done.stderr


def test_a_peer_of_another_device_alone_is_no_failure(run) -> None:  # type: ignore[no-untyped-def]
    done = run("--peer", "elsewhere", "--precision", "fp32")
    assert done.returncode == 0
    assert "elsewhere" not in done.stdout
