"""Two ranks through torchrun: over loopback by --nproc, and on two hosts that are network namespaces."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench_torch_ipex.platform import world
from shared_spec import files
from shared_spec.dev import testing
from shared_spec.ranks import World
from shared_spec.results import format
from shared_spec.workload.spec import Spec

PACKAGE = "bench_torch_ipex"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the first steps of one process, which those of several have to equal."""
    out = tmp_path_factory.mktemp("alone")
    result = testing.run(PACKAGE, testing.small_spec(3), out, "--phases", "convergence", "--engine", "stock")
    return result["phases"][0]["measurements"]["loss_trace"]


def test_two_processes_are_one_training(engine: str, alone: list[float], tmp_path: Path) -> None:
    asked = ("--phases", "conformance,training,convergence", "--nproc", 2, "--engine", engine)
    result = testing.run(PACKAGE, testing.small_spec(3), tmp_path, *asked)
    assert format.problems(result) == []
    assert result["parallel"] == {
        "world_size": 2, "scaling": "strong", "engine": "torch.distributed, gloo", "transport": "tcp", "hosts": 1,
    }  # fmt: skip
    conformance, training, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert [check for check in conformance["checks"] if not check["passed"]] == []
    assert training["parallel"]["params_equal"] is True
    assert len(training["parallel"]["rank_window_blocks"]) == 2
    assert 0 < training["parallel"]["overlapped_seconds"] <= training["parallel"]["communication_seconds"]
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5)


def test_a_killed_rank_ends_the_phase_and_the_training_goes_on_alone(alone: list[float], tmp_path: Path) -> None:
    spec = testing.small_spec(60)
    asked = ("--phases", "convergence", "--engine", "stock")
    outcome = testing.kill_one_of_two(
        PACKAGE, spec, tmp_path, lambda run, rank: testing.rank_process(run, "RANK", rank), *asked
    )
    assert outcome["reason"] == "rank 1 was killed by SIGKILL"
    (outcome,) = testing.run(PACKAGE, spec, tmp_path, *asked)["phases"]
    measured = outcome["measurements"]
    assert measured["parallel"] == {"world_sizes": [2, 1]}
    assert len(measured["epochs"]) == 60


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    if reason := testing.why_not_two_hosts():
        pytest.skip(reason)
    with testing.two_hosts() as found:
        yield found


def start_on(hosts: list[list[str]], spec: Spec, out: Path, *asked: object) -> list[subprocess.Popen[str]]:
    lines, envs = [], []
    for rank, enter in enumerate(hosts):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        torchrun += ["--node-rank", str(rank), "--master-addr", testing.ADDRESSES[0], "--master-port", "29500"]
        words = testing.command(PACKAGE, spec, out / f"host-{rank}", *asked, "--engine", "stock")
        lines.append([*enter, *torchrun, *words])
        envs.append({"GLOO_SOCKET_IFNAME": testing.INTERFACES[rank]})
    return testing.run_on_hosts(lines, envs)


def test_two_hosts_are_one_training(alone: list[float], hosts: list[list[str]], tmp_path: Path) -> None:
    processes = start_on(hosts, testing.small_spec(3), tmp_path, "--phases", "conformance,convergence")
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    result = testing.newest_result(tmp_path / "host-0")
    assert result["parallel"]["hosts"] == 2
    conformance, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert conformance["passed"] is True
    assert convergence["parallel"] == {"world_sizes": [2]}
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5)
    assert not list((tmp_path / "host-1").glob("*.json"))


def test_a_rank_killed_on_another_host_ends_both_and_the_training_goes_on(
    hosts: list[list[str]], tmp_path: Path
) -> None:
    spec, asked = testing.small_spec(60), ("--phases", "convergence")
    processes = start_on(hosts, spec, tmp_path, *asked)
    testing.wait_for(lambda: list(tmp_path.glob("host-0/.runs/*/convergence-0.safetensors")))
    (rank,) = psutil.Process(processes[1].pid).children()
    os.kill(rank.pid, signal.SIGKILL)
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], said
    assert "convergence failed" in said[0]
    (kept,) = (tmp_path / "host-0").glob(".runs/*/ranks-2/00-convergence-0.failed.json")
    assert files.read(kept)["status"] == "failed"
    (outcome,) = testing.run(PACKAGE, spec, tmp_path / "host-0", *asked, "--engine", "stock")["phases"]
    assert outcome["measurements"]["parallel"] == {"world_sizes": [2, 1]}


def test_the_place_among_the_ranks_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world() == World()
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    for name, value in zip(variables, (5, 8, 1, 2, 4), strict=True):
        monkeypatch.setenv(name, str(value))
    assert world() == World(5, 8, 1, 2, 4)
