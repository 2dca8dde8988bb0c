"""Two ranks: over loopback by --nproc through mlx.launch, and on two hosts that are network namespaces."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from bench_mlx.platform import PLATFORM, launch, world
from shared_spec import files
from shared_spec.dev import testing
from shared_spec.ranks import EXIT_STALLED, World
from shared_spec.results import format

PACKAGE = "bench_mlx"
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of the first steps of one process, which those of several have to equal."""
    out = tmp_path_factory.mktemp("alone")
    result = testing.run(PACKAGE, testing.small_spec(3), out, "--phases", "convergence", *CPU)
    return result["phases"][0]["measurements"]["loss_trace"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_processes_are_one_training(precision, alone, tmp_path):
    asked = ("--phases", "conformance,training,convergence", "--nproc", 2, *CPU, "--precision", precision)
    result = testing.run(PACKAGE, testing.small_spec(3), tmp_path, *asked)
    assert format.problems(result) == []
    assert result["parallel"] == {
        "world_size": 2, "scaling": "strong", "engine": "mlx.core.distributed, ring", "transport": "tcp", "hosts": 1,
    }  # fmt: skip
    conformance, training, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert [check for check in conformance["checks"] if not check["passed"]] == []
    assert training["parallel"]["params_equal"] is True
    assert len(training["parallel"]["rank_window_blocks"]) == 2
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5 if precision == "fp32" else 2e-2)


def test_a_killed_rank_ends_the_phase_and_the_training_goes_on_alone(tmp_path):
    spec = testing.small_spec(60)
    asked = ("--phases", "convergence", *CPU)
    outcome = testing.kill_one_of_two(
        PACKAGE, spec, tmp_path, lambda run, rank: testing.rank_process(run, "MLX_RANK", rank), *asked
    )
    assert outcome["reason"] == "rank 1 was killed by SIGKILL"
    (outcome,) = testing.run(PACKAGE, spec, tmp_path, *asked)["phases"]
    measured = outcome["measurements"]
    assert measured["parallel"] == {"world_sizes": [2, 1]}
    assert len(measured["epochs"]) == 60


def test_a_stopped_rank_ends_the_phase_in_time(tmp_path):
    asked = ("--phases", "convergence", *CPU, "--nproc", 2, "--rank-timeout", 8)
    line = [sys.executable, *testing.command(PACKAGE, testing.small_spec(2000), tmp_path, *asked)]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    testing.wait_for(lambda: list(tmp_path.glob(".runs/*/convergence-0.safetensors")))
    testing.rank_process(parent.pid, "MLX_RANK", 1).send_signal(signal.SIGSTOP)
    said, _ = parent.communicate(timeout=60)
    assert parent.returncode == 1, said
    (outcome,) = testing.newest_result(tmp_path)["phases"]
    assert outcome["reason"] == "rank 0: nothing moved for 8 s: a rank has died or hangs"


@pytest.fixture
def hosts():
    if reason := testing.why_not_two_hosts():
        pytest.skip(reason)
    with testing.two_hosts() as found:
        yield found


def start_on(hosts, spec, out, *asked):
    hostfile = out / "hosts"  # what mlx.launch hands to each host that it reaches by ssh
    hostfile.write_text(json.dumps([[f"{address}:32323"] for address in testing.ADDRESSES]))
    lines, envs = [], []
    for rank, enter in enumerate(hosts):
        words = testing.command(PACKAGE, spec, out / f"host-{rank}", *asked, *CPU)
        lines.append([*enter, sys.executable, *words])
        envs.append({"MLX_HOSTFILE": str(hostfile), "MLX_RANK": str(rank)})
    return testing.run_on_hosts(lines, envs)


def test_two_hosts_are_one_training(alone, hosts, tmp_path):
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


def test_a_rank_killed_on_another_host_ends_both_and_the_training_goes_on(hosts, tmp_path):
    spec, asked = testing.small_spec(60), ("--phases", "convergence")
    processes = start_on(hosts, spec, tmp_path, *asked, "--rank-timeout", 10)
    testing.wait_for(lambda: list(tmp_path.glob("host-0/.runs/*/convergence-0.safetensors")))
    processes[1].kill()
    said = [process.communicate(timeout=60)[0] for process in processes]
    # MLX's ring does not always wake those that wait for a lost rank; then the watchdog ends them.
    assert processes[0].returncode in (1, EXIT_STALLED), said
    assert processes[1].returncode == -signal.SIGKILL
    (kept,) = (tmp_path / "host-0").glob(".runs/*/ranks-2/00-convergence-0.failed.json")
    assert files.read(kept)["status"] == "failed"
    (outcome,) = testing.run(PACKAGE, spec, tmp_path / "host-0", *asked, *CPU)["phases"]
    assert outcome["measurements"]["parallel"] == {"world_sizes": [2, 1]}


def test_the_place_among_the_ranks_is_the_launchers(monkeypatch, tmp_path):
    assert world() == World()
    hosts = tmp_path / "hosts"
    hosts.write_text(json.dumps([["10.0.0.1:5"], ["10.0.0.2:5", "10.0.1.2:5"], ["10.0.0.1:6"], ["10.0.0.2:6"]]))
    monkeypatch.setenv("MLX_HOSTFILE", str(hosts))
    monkeypatch.setenv("MLX_RANK", "3")
    assert world() == World(3, 4, 1, 2, 2)
    monkeypatch.delenv("MLX_HOSTFILE")
    monkeypatch.setenv("NCCL_HOST_IP", "10.0.0.1")
    monkeypatch.setenv("MLX_WORLD_SIZE", "8")
    assert world() == World(3, 8)
    monkeypatch.delenv("NCCL_HOST_IP")
    for name, value in (("RANK", 6), ("SIZE", 8), ("LOCAL_RANK", 2), ("LOCAL_SIZE", 4)):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert world() == World(6, 8, 2, 4, 2)


def test_the_launcher_is_mlxs_own_with_the_devices_engine():
    (start,) = launch(4, "cuda", ["-m", PLATFORM.package])
    assert start.arguments[1:5] == ["-n", "4", "--backend", "nccl"]
    assert start.arguments[-4:] == ["--", sys.executable, "-m", "bench_mlx"]
    (start,) = launch(4, "gpu", [])
    assert start.arguments[3:5] == ["--backend", "ring"]
