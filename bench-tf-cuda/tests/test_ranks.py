"""Several ranks: where TF_CONFIG puts a process, and two real ones that train on this machine's loopback interface."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tensorflow as tf

from bench_tf_cuda import platform
from bench_tf_cuda.ranks import rank_errors
from shared_spec.errors import UserError
from shared_spec.parallel import World
from shared_spec.spec import load_spec

Cli = Callable[..., "subprocess.Popen[str]"]


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


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    """A workload that trains in milliseconds a step, and takes some seconds to its end."""
    content = load_spec().to_dict()
    content["model"] |= {"image_size": 64, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    content["data"] |= {"train_images": 256, "test_images": 30}
    content["training"] |= {"batch_size": 4, "eval_batch_size": 16, "epochs": 30}
    content["measuring"] |= {"block_seconds": 0.01}
    content["profiles"]["quick"] |= {"idle_seconds": 0.01, "warmup_max_seconds": 0.1, "window_seconds": 0.1}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def cli(spec_path: Path, tmp_path: Path) -> Iterator[Cli]:
    """Starts `run`, with further arguments and environment."""
    started: list[subprocess.Popen[str]] = []
    common = f"--profile quick --device cpu --data synthetic --spec {spec_path} --out {tmp_path / 'out'}".split()

    def start(*arguments: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench_tf_cuda", "run", *common, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **env}, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: "subprocess.Popen[str]", seconds: float) -> str:
    """What a process has printed, which ends well within so many seconds."""
    text, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, text
    return text


def only_result(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "out").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_two_ranks_train_the_specified_model(cli: Cli, tmp_path: Path) -> None:
    """The 20-step trace within the derived bound, and equal parameters, are checks of the conformance phase."""
    ended(cli("--nproc", "2", "--phases", "conformance,training"), 200)
    result = only_result(tmp_path)
    assert result["parallel"] == {
        "world_size": 2, "scaling": "strong", "engine": "tf.distribute", "transport": "ring over gRPC", "hosts": 1,
    }  # fmt: skip
    conformance, training = (outcome["measurements"] for outcome in result["phases"])
    assert conformance["passed"]
    assert {"trace, loss", "trace, parameters", "ranks"} <= {check["name"] for check in conformance["checks"]}
    shared = training["parallel"]
    assert training["batch_size"] == 4
    assert shared["params_equal"]
    assert len(shared["rank_window_blocks"]) == len(shared["rank_step_seconds"]) == 2
    assert 0 < shared["communication_seconds"] < training["window_blocks"][0][1]
    assert shared["overlapped_seconds"] == 0


def rank_process(run: "subprocess.Popen[str]", rank: int) -> psutil.Process:
    """The process of a rank that `run` has started."""
    for child in psutil.Process(run.pid).children(recursive=True):
        if json.loads(child.environ().get("TF_CONFIG", "{}")).get("task", {}).get("index") == rank:
            return child
    raise AssertionError(f"no rank {rank}")


def await_file(folder: Path, pattern: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not any(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.02)


def test_a_killed_rank_ends_the_training_and_one_process_goes_on_with_it(cli: Cli, tmp_path: Path) -> None:
    two = cli("--nproc", "2", "--phases", "convergence")
    await_file(tmp_path / "out", ".runs/*/convergence-0.safetensors", 120)
    other, victim = rank_process(two, 0), rank_process(two, 1)
    victim.kill()
    text, _ = two.communicate(timeout=30)
    assert two.returncode == 1
    other.wait(timeout=5)
    outcome = only_result(tmp_path)["phases"][0]
    assert outcome["status"] == "failed"
    assert outcome["reason"] == f"rank 1 was killed by {signal.Signals.SIGKILL.name}", text

    next((tmp_path / "out").glob("*.json")).unlink()
    ended(cli("--phases", "convergence"), 120)
    measured = only_result(tmp_path)["phases"][0]["measurements"]
    assert measured["parallel"] == {"world_sizes": [2, 1]}
    assert measured["resumed"] == 1
    assert len(measured["epochs"]) == 30
    assert measured["images"] == 30 * 256


def test_ranks_started_by_hand_run_together_and_one_alone_gives_up(cli: Cli, tmp_path: Path) -> None:
    """As on several machines: each process is given its TF_CONFIG and runs all phases itself."""
    first, second = (start.env["TF_CONFIG"] for start in platform.launch(2, "cpu", []))
    alone = cli("--phases", "training", "--rank-timeout", "3", TF_CONFIG=second)
    text, _ = alone.communicate(timeout=60)
    assert alone.returncode == 1
    assert "Waiting for the 2 workers of TF_CONFIG, for 3 s at most" in text.splitlines()[-1]

    processes = [cli("--phases", "training", TF_CONFIG=text) for text in (first, second)]
    for process in processes:
        ended(process, 120)
    assert only_result(tmp_path)["parallel"]["world_size"] == 2
