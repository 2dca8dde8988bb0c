"""Two ranks through mlx.launch by --nproc, and on two hosts by the variables that it sets there."""

import json
import signal
import subprocess
import sys

from bench_mlx.platform import PLATFORM, launch, world
from shared_spec.dev import testing
from shared_spec.dev.rank_tests import RankTests, python
from shared_spec.ranks import EXIT_STALLED, World


class TestRanks(RankTests):
    package, options = "bench_mlx", ("--device", "cpu")
    engine, rank_variable = "mlx.core.distributed, ring", "MLX_RANK"
    rank_timeout = 10

    def on_host(self, rank, words, folder):
        hostfile = folder / "hosts"  # what mlx.launch hands to each host that it reaches by ssh
        hostfile.write_text(json.dumps([[f"{address}:32323"] for address in testing.ADDRESSES]))
        return python(words), {"MLX_HOSTFILE": str(hostfile), "MLX_RANK": str(rank)}

    def check_lost_rank(self, statuses, outputs):
        # MLX's ring does not always wake those that wait for a lost rank; then the watchdog ends them.
        assert statuses[0] in (1, EXIT_STALLED), outputs
        assert statuses[1] == -signal.SIGKILL

    def test_two_processes_train_the_specified_model_in_bf16_too(self, tmp_path):
        """Gradients are then averaged in float32."""
        bf16 = ("--precision", "bf16", "--emulated")  # which is what MLX does on a CPU
        self.check_conformance(self.trained_by_two(tmp_path, "conformance", *self.options, *bf16))

    def test_a_stopped_rank_ends_the_phase_in_time(self, tmp_path):
        asked = ("--phases", "convergence", *self.options, "--nproc", 2, "--rank-timeout", 8)
        line = python(testing.command(self.package, testing.small_spec(2000), tmp_path, *asked))
        parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        testing.wait_for(lambda: list(tmp_path.glob(".runs/*/convergence-0.safetensors")))
        self.rank_process(parent.pid, 1).send_signal(signal.SIGSTOP)
        output, _ = parent.communicate(timeout=240)
        assert parent.returncode == 1, output
        (outcome,) = testing.newest_result(tmp_path)["phases"]
        assert outcome["reason"] == "rank 0: nothing moved for 8 s: a rank has died or hangs"


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
