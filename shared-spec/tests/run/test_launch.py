"""Runs of several ranks: processes of one host started by --nproc, and processes that a launcher has started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fake_runs import asked, environment_of, only_result, quick, running, start, start_hanging, wait_for

from shared_spec import files
from shared_spec.ranks import EXIT_STALLED
from shared_spec.results import format


def test_nproc_leaves_one_valid_result_of_all_ranks(spec_file: Path, tmp_path: Path) -> None:
    done = quick(spec_file, tmp_path / "r", "--nproc", 2, phases="ceiling,training,convergence,latency")
    assert done.returncode == 0, done.stderr
    assert "Left out, as they measure one device: latency." in done.stdout
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    assert result["parallel"] == {
        "world_size": 2, "scaling": "strong", "engine": "fake", "transport": "files", "hosts": 1,
    }  # fmt: skip
    ceiling, training, convergence = result["phases"]
    assert "ranks" not in ceiling["backend"]["details"]
    assert training["measurements"]["batch_size"] == 4
    assert len(training["measurements"]["parallel"]["rank_window_blocks"]) == 2
    assert training["measurements"]["energy"]["joules"] is None
    assert convergence["measurements"]["parallel"] == {"world_sizes": [2]}
    assert [path.name for path in (tmp_path / "r" / ".runs").iterdir()] == ["salt"]


def test_weak_scaling_grows_the_global_batch(spec_file: Path, tmp_path: Path) -> None:
    done = quick(spec_file, tmp_path / "r", "--nproc", 3, "--scaling", "weak", phases="training")
    assert done.returncode == 0, done.stderr
    result = only_result(tmp_path / "r")
    assert result["parallel"]["scaling"] == "weak"
    assert result["phases"][0]["measurements"]["batch_size"] == 12


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("bug:3", "fault", "rank 1: ValueError: fake bug"),
        ("oom:3", "out_of_memory", "rank 1: out of memory"),
        ("part:3", "ranks", "parameters after the training steps: rank 1 differs from rank 0"),
        ("hang:3", "ranks", "nothing moved for 2 s: a rank has died or hangs"),
    ],
)
def test_a_rank_that_fails_fails_the_phase_in_time(
    spec_file: Path, tmp_path: Path, fault: str, kind: str, words: str
) -> None:
    asked_for = ("--nproc", 2, "--rank-timeout", 2)
    done = quick(spec_file, tmp_path / "r", *asked_for, phases="training", FAKE_FAULT=fault, FAKE_FAULT_RANK="1")
    assert done.returncode == 1
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    (training,) = result["phases"]
    assert training["failure"] == kind
    assert words in training["reason"]
    assert training["seconds"] < 15


def test_a_rank_that_is_killed_fails_its_phase_alone(spec_file: Path, tmp_path: Path) -> None:
    asked_for = ("--nproc", 2, "--rank-timeout", 2)
    done = quick(
        spec_file, tmp_path / "r", *asked_for, phases="ceiling,training", FAKE_FAULT="kill:3", FAKE_FAULT_RANK="1"
    )
    assert done.returncode == 1
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    ceiling, training = result["phases"]
    assert ceiling["status"] == "ok"
    assert (training["failure"], training["reason"]) == ("ranks", "rank 1 was killed by SIGKILL")
    assert training["seconds"] < 15
    done = quick(spec_file, tmp_path / "r", *asked_for, phases="ceiling,training")
    assert done.returncode == 0, done.stderr
    assert only_result(tmp_path / "r")["phases"][0] == ceiling


def test_ranks_that_cannot_run_at_all_end_the_run_with_a_sentence(spec_file: Path, tmp_path: Path) -> None:
    done = quick(spec_file, tmp_path / "r", "--nproc", 2, "--device", "cuda", phases="training")
    assert done.returncode == 1
    assert "--device cuda: there is no such device here." in done.stderr
    assert not list((tmp_path / "r").glob("*.json"))


def test_a_killed_rank_costs_a_full_training_nothing_with_another_number(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    done = quick(spec_file, out, "--nproc", 2, phases="convergence", FAKE_FAULT="kill:100", FAKE_FAULT_RANK="1")
    assert done.returncode == 1
    assert [outcome["reason"] for outcome in only_result(out)["phases"]] == ["rank 1 was killed by SIGKILL"]
    done = quick(spec_file, out, "--nproc", 4, phases="convergence")
    assert done.returncode == 0, done.stderr
    newest = max(out.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    result = files.read(newest)
    assert result["parallel"]["world_size"] == 4
    assert result["phases"][0]["measurements"]["parallel"] == {"world_sizes": [2, 4]}


def test_killing_the_parent_leaves_no_rank(spec_file: Path, tmp_path: Path) -> None:
    parent, _ = start_hanging(spec_file, tmp_path / "r", "--nproc", 2)
    ranks = psutil.Process(parent.pid).children(recursive=True)
    wait_for(lambda: len(psutil.Process(parent.pid).children(recursive=True)) == 2)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not any(running(rank.pid) for rank in ranks))


# Processes that a launcher has started, on any host: each is `run` itself.


def start_as_ranks(spec: Path, folder: Path, size: int, phases: str, **env: str) -> list[subprocess.Popen[str]]:
    group = folder / "group"
    shutil.rmtree(group, ignore_errors=True)
    group.mkdir()
    return [
        start(
            *asked(spec, folder / f"host-{rank}", phases), "--rank-timeout", 3,
            FAKE_RANK=str(rank), FAKE_SIZE=str(size), FAKE_FOLDER=str(group), **env,
        )
        for rank in range(size)
    ]  # fmt: skip


def test_run_under_a_launcher_is_one_run_of_all_ranks(spec_file: Path, tmp_path: Path) -> None:
    processes = start_as_ranks(spec_file, tmp_path, 2, "ceiling,training,convergence")
    texts = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    result = only_result(tmp_path / "host-0")
    assert format.problems(result) == []
    assert result["parallel"]["world_size"] == 2
    assert [outcome["phase"] for outcome in result["phases"]] == ["ceiling", "training", "convergence"]
    assert not (tmp_path / "host-1").exists()
    assert texts[1] == ("", "")


def test_a_rank_that_is_killed_under_a_launcher_ends_all_and_the_run_goes_on_from_there(
    spec_file: Path, tmp_path: Path
) -> None:
    fault = {"FAKE_FAULT": "kill:100", "FAKE_FAULT_RANK": "1"}
    processes = start_as_ranks(spec_file, tmp_path, 2, "ceiling,convergence", **fault)
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [EXIT_STALLED, -9]
    (failed,) = (tmp_path / "host-0").glob(".runs/*/ranks-2/06-convergence-0.failed.json")
    assert "nothing moved for 3 s" in files.read(failed)["reason"]
    assert files.read(failed)["failure"] == "ranks"
    processes = start_as_ranks(spec_file, tmp_path, 4, "ceiling,convergence")
    texts = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, texts
    result = only_result(tmp_path / "host-0")
    assert result["phases"][1]["measurements"]["parallel"] == {"world_sizes": [2, 4]}


def test_each_rank_gets_its_share_of_the_cores() -> None:
    if not hasattr(os, "sched_setaffinity") or (psutil.cpu_count(logical=False) or 1) < 2:
        pytest.skip("NOT TESTED: this system has one core, or does not let a process choose its cores")
    line = (
        "import os, sys; from shared_spec.machine.topology import take_core_share; "
        "take_core_share(int(sys.argv[1]), 2); print(sorted(os.sched_getaffinity(0)))"
    )
    shares = []
    for part in range(2):
        words = [sys.executable, "-c", line, str(part)]
        done = subprocess.run(words, env=environment_of(), capture_output=True, text=True, check=True)
        shares.append(set(files.loads(done.stdout)))
    assert shares[0]
    assert shares[1]
    assert not shares[0] & shares[1]
