"""Several ranks: where TF_CONFIG puts a process; two real ones over loopback by --nproc, and on two hosts by TF_CONFIG."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import tensorflow as tf

from bench_tf_cuda import platform
from bench_tf_cuda.ranks import rank_errors
from shared_spec.dev import testing
from shared_spec.dev.rank_tests import RankTests, Words, python
from shared_spec.errors import UserError
from shared_spec.platform import Threads
from shared_spec.ranks import World


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


FED_AHEAD = """
import numpy as np
from bench_tf_cuda import ahead
from bench_tf_cuda.backend import TfBackend
from shared_spec import ranks
from shared_spec.dev.testing import small_spec
from shared_spec.workload import params

spec = small_spec(1)
backend = TfBackend(spec, "cpu", "fp32", "xla")
images = np.random.default_rng(backend.group.rank).integers(0, 256, (2, 32, 32, 3), np.uint8)

def train():
    backend.load_params(params.initial(spec))
    for step in range(4):
        backend.train_step(backend.to_device(images, np.eye(100, dtype=np.float32)[[step, 1]]), 1e-3)
        if step == 2:
            assert ranks.decided(backend.group, step) == step
            queued.append(len(backend._ahead._launches) if backend._ahead else 0)
    return backend.export_params()

queued = []
expected = train()
backend._ahead = ahead.Ahead()
found = train()
assert queued == [0, 0], "words came between steps"
assert all(np.array_equal(found[name], value) for name, value in expected.items())
"""
"""Two ranks train as on a GPU, steps given to a thread and words exchanged between them, and as on a CPU."""


def test_ranks_fed_ahead_train_alike_and_exchange_words_behind_their_steps() -> None:
    env = {**os.environ, **platform.worker_env("cpu", "xla", Threads(1))}
    starts = platform.launch(2, "cpu", ["-c", FED_AHEAD])
    started = [
        subprocess.Popen(start.arguments, env={**env, **start.env}, stderr=subprocess.PIPE, text=True)
        for start in starts
    ]
    outputs = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs


class TestRanks(RankTests):
    package, options = "bench_tf_cuda", ("--device", "cpu")
    engine, transport = "tf.distribute", "ring over gRPC"
    epochs_to_interrupt = 60

    def rank_process(self, run: int, rank: int) -> psutil.Process:
        for child in psutil.Process(run).children(recursive=True):
            if json.loads(child.environ().get("TF_CONFIG", "{}")).get("task", {}).get("index") == rank:
                return child
        raise AssertionError(f"there is no rank {rank}")

    def on_host(self, rank: int, words: Words, folder: Path) -> tuple[Words, dict[str, str]]:
        return python(words), {"TF_CONFIG": tf_config(rank, *(f"{address}:2222" for address in testing.ADDRESSES))}

    def check_communication(self, training: dict[str, Any]) -> None:
        assert training["parallel"]["communication_seconds"] > 0
        assert training["parallel"]["overlapped_seconds"] == 0

    def check_lost_rank(self, statuses: list[int], outputs: list[str]) -> None:
        assert statuses == [1, -signal.SIGKILL], outputs  # `ip netns exec` has become the rank
        assert "convergence failed: ConnectionError: a rank is gone or hangs: Collective" in " ".join(
            outputs[0].split()
        )


def test_a_worker_that_nobody_joins_gives_up(tmp_path: Path) -> None:
    """With Python's lock held by TensorFlow, so that no thread of this project could end it."""
    second = platform.launch(2, "cpu", [])[1].env["TF_CONFIG"]
    options = (*TestRanks.options, "--phases", "training", "--rank-timeout", 3)
    asked = testing.command(TestRanks.package, testing.small_spec(3), tmp_path, *options)
    env = {**os.environ, "TF_CONFIG": second}
    done = subprocess.run([sys.executable, *asked], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "Waiting for the 2 workers of TF_CONFIG, for 3 s at most" in done.stderr.splitlines()[-1]
