"""Several ranks: where TF_CONFIG puts a process; two real ones over loopback by --nproc, and on two hosts by TF_CONFIG."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf

from bench_tf_cuda import platform
from bench_tf_cuda.ranks import rank_errors
from shared_spec.dev import testing
from shared_spec.errors import UserError
from shared_spec.ranks import World
from shared_spec.results import format
from shared_spec.workload.spec import Spec

PACKAGE = "bench_tf_cuda"
ON_CPU = ("--device", "cpu", "--phases")


def tf_config(index: int, *workers: str) -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def test_world_is_what_tf_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert platform.world() == World()
    workers = ("one:1", "two:1", "two:2", "[::1]:1", "two:3")
    monkeypatch.setenv("TF_CONFIG", tf_config(2, *workers))
    assert platform.world() == World(rank=2, size=5, local_rank=1, local_size=3, hosts=3)
    monkeypatch.setenv("TF_CONFIG", tf_config(3, *workers))
    assert platform.world() == World(rank=3, size=5, local_rank=0, local_size=1, hosts=3)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {}}',
        tf_config(2, "one:1", "two:1"),
        tf_config(-1, "one:1", "two:1"),
        tf_config(0, "one:1").replace('"type": "worker"', '"type": "ps"'),
        tf_config(0, "one:1").replace('{"worker"', '{"chief": ["two:1"], "worker"'),
    ],
)
def test_a_tf_config_without_a_place_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r'^TF_CONFIG: .* give it as \{"cluster"'):
        platform.world()


def test_launch_gives_each_rank_its_own_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = platform.launch(3, "cpu", ["-m", "something"])
    assert all(start.arguments == [sys.executable, "-m", "something"] for start in starts)
    configs = [json.loads(start.env["TF_CONFIG"]) for start in starts]
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    for rank, start in enumerate(starts):
        monkeypatch.setenv("TF_CONFIG", start.env["TF_CONFIG"])
        assert platform.world() == World(rank, 3, rank, 3, 1)


def test_a_lost_rank_is_told_in_a_sentence() -> None:
    message = "Graph execution error:\n\nCollective ops is aborted by: Socket closed\nAdditional GRPC error ..."
    with (
        pytest.raises(ConnectionError, match=r"^a rank is gone or hangs: Collective ops is aborted by: Socket closed$"),
        rank_errors(),
    ):
        raise tf.errors.UnavailableError(None, None, message)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the first steps of one process, which those of several have to equal."""
    out = tmp_path_factory.mktemp("alone")
    result = testing.run(PACKAGE, testing.small_spec(3), out, *ON_CPU, "convergence")
    losses: list[float] = result["phases"][0]["measurements"]["loss_trace"]
    return losses


def test_two_processes_are_one_training(alone: list[float], tmp_path: Path) -> None:
    asked = (*ON_CPU, "conformance,training,convergence", "--nproc", 2)
    result = testing.run(PACKAGE, testing.small_spec(3), tmp_path, *asked)
    assert format.problems(result) == []
    assert result["parallel"] == {
        "world_size": 2, "scaling": "strong", "engine": "tf.distribute", "transport": "ring over gRPC", "hosts": 1,
    }  # fmt: skip
    conformance, training, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert [check for check in conformance["checks"] if not check["passed"]] == []
    shared = training["parallel"]
    assert shared["params_equal"] is True
    assert len(shared["rank_window_blocks"]) == len(shared["rank_step_seconds"]) == 2
    (_, seconds), *_ = training["window_blocks"]
    assert 0 < shared["communication_seconds"] < seconds
    assert shared["overlapped_seconds"] == 0
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5)


def rank_process(run: int, rank: int) -> psutil.Process:
    """The process of a rank that the process `run` has started."""
    for child in psutil.Process(run).children(recursive=True):
        if json.loads(child.environ().get("TF_CONFIG", "{}")).get("task", {}).get("index") == rank:
            return child
    raise AssertionError(f"there is no rank {rank}")


def test_a_killed_rank_ends_the_training_and_one_process_goes_on_with_it(tmp_path: Path) -> None:
    spec = testing.small_spec(200)
    outcome = testing.kill_one_of_two(PACKAGE, spec, tmp_path, rank_process, *ON_CPU, "convergence")
    assert outcome["status"] == "failed"
    assert outcome["reason"] == "rank 1 was killed by SIGKILL"
    (outcome,) = testing.run(PACKAGE, spec, tmp_path, *ON_CPU, "convergence")["phases"]
    measured = outcome["measurements"]
    assert measured["parallel"] == {"world_sizes": [2, 1]}
    assert measured["resumed"] == 1
    assert len(measured["epochs"]) == 200


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    if reason := testing.why_not_two_hosts():
        pytest.skip(reason)
    with testing.two_hosts() as found:
        yield found


def start_on(hosts: list[list[str]], spec: Spec, out: Path, *asked: object) -> list["subprocess.Popen[str]"]:
    workers = [f"{address}:2222" for address in testing.ADDRESSES]
    lines = [
        [*enter, sys.executable, *testing.command(PACKAGE, spec, out / f"host-{rank}", *asked)]
        for rank, enter in enumerate(hosts)
    ]
    return testing.run_on_hosts(lines, [{"TF_CONFIG": tf_config(rank, *workers)} for rank in range(2)])


def test_two_hosts_are_one_training(alone: list[float], hosts: list[list[str]], tmp_path: Path) -> None:
    processes = start_on(hosts, testing.small_spec(3), tmp_path, *ON_CPU, "conformance,convergence")
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    result = testing.newest_result(tmp_path / "host-0")
    assert result["parallel"]["hosts"] == 2
    conformance, convergence = (outcome["measurements"] for outcome in result["phases"])
    assert conformance["passed"] is True
    np.testing.assert_allclose(convergence["loss_trace"], alone, rtol=1e-5)
    assert not list((tmp_path / "host-1").glob("*.json"))


def test_a_rank_killed_on_another_host_ends_both(hosts: list[list[str]], tmp_path: Path) -> None:
    processes = start_on(hosts, testing.small_spec(10_000), tmp_path, *ON_CPU, "convergence")
    testing.wait_for(lambda: list(tmp_path.glob("host-0/.runs/*/convergence-0.safetensors")))
    processes[1].kill()  # `ip netns exec` has become the rank
    said, _ = processes[0].communicate(timeout=30)
    assert processes[0].returncode == 1
    assert "convergence failed: ConnectionError: a rank is gone or hangs: Collective" in " ".join(said.split())


def test_a_worker_that_nobody_joins_gives_up(tmp_path: Path) -> None:
    """With Python's lock held by TensorFlow, so that no thread of this project could end it."""
    second = platform.launch(2, "cpu", [])[1].env["TF_CONFIG"]
    asked = testing.command(PACKAGE, testing.small_spec(3), tmp_path, *ON_CPU, "training", "--rank-timeout", 3)
    env = {**os.environ, "TF_CONFIG": second}
    done = subprocess.run([sys.executable, *asked], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Waiting for the 2 workers of TF_CONFIG, for 3 s at most" in done.stderr.splitlines()[-1]
