"""Two ranks through torchrun: over loopback by --nproc, and on two hosts that are network namespaces."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench_torch_ipex.platform import world
from shared_spec import results, testing
from shared_spec.parallel import World

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
    assert results.problems(result) == []
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
    line = [sys.executable, *testing.command(PACKAGE, spec, tmp_path, *asked, "--nproc", 2)]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    testing.wait_for(lambda: list(tmp_path.glob(".runs/*/convergence-0.safetensors")))
    ranks = [testing.rank_process(parent.pid, "RANK", rank) for rank in range(2)]
    os.kill(ranks[1].pid, signal.SIGKILL)
    said, _ = parent.communicate(timeout=60)
    assert parent.returncode == 1, said
    (outcome,) = testing.newest_result(tmp_path)["phases"]
    assert outcome["reason"] == "rank 1 was killed by SIGKILL"
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    (outcome,) = testing.run(PACKAGE, spec, tmp_path, *asked)["phases"]
    measured = outcome["measurements"]
    assert measured["parallel"] == {"world_sizes": [2, 1]}
    assert len(measured["epochs"]) == 60


def test_two_hosts_are_one_training(alone: list[float], tmp_path: Path) -> None:
    if reason := testing.why_not_two_hosts():
        pytest.skip(reason)
    with testing.two_hosts() as hosts:
        lines, envs = [], []
        for rank, enter in enumerate(hosts):
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
            torchrun += ["--node-rank", str(rank), "--master-addr", testing.ADDRESSES[0], "--master-port", "29500"]
            asked = ("--phases", "conformance,convergence", "--engine", "stock")
            words = testing.command(PACKAGE, testing.small_spec(3), tmp_path / f"host-{rank}", *asked)
            lines.append([*enter, *torchrun, *words])
            envs.append({"GLOO_SOCKET_IFNAME": testing.INTERFACES[rank]})
        processes = testing.run_on_hosts(lines, envs)
        said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    result = testing.newest_result(tmp_path / "host-0")
    assert result["parallel"]["hosts"] == 2
    conformance, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert conformance["passed"] is True
    assert convergence["parallel"] == {"world_sizes": [2]}
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5)
    assert not list((tmp_path / "host-1").glob("*.json"))


def test_the_place_among_the_ranks_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world() == World()
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    for name, value in zip(variables, (5, 8, 1, 2, 4), strict=True):
        monkeypatch.setenv(name, str(value))
    assert world() == World(5, 8, 1, 2, 4)
