"""Two ranks through torchrun: on this host by --nproc, and on two hosts."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench_torch_ipex.platform import PLATFORM, world
from shared_spec.dev import testing
from shared_spec.dev.rank_tests import RankTests, Words, kill_child, python
from shared_spec.ranks import World


class TestRanks(RankTests):
    package, options = "bench_torch_ipex", ("--engine", "stock")
    engine, rank_variable = "torch.distributed, gloo", "RANK"
    epochs_to_interrupt = 20

    def on_host(self, rank: int, words: Words, folder: Path) -> tuple[Words, dict[str, str]]:
        torchrun = python(["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"])
        torchrun += ["--node-rank", str(rank), "--master-addr", testing.ADDRESSES[0], "--master-port", "29500"]
        return [*torchrun, *words], {"GLOO_SOCKET_IFNAME": testing.INTERFACES[rank]}

    def check_communication(self, training: dict[str, Any]) -> None:
        assert 0 < training["parallel"]["overlapped_seconds"] <= training["parallel"]["communication_seconds"]

    def kill_rank_on_its_host(self, started: "subprocess.Popen[str]") -> None:
        kill_child(started)

    def check_lost_rank(self, statuses: list[int], outputs: list[str]) -> None:
        assert statuses == [1, 1], outputs
        assert "convergence failed" in outputs[0]

    @pytest.mark.skipif("ipex" not in PLATFORM.engines, reason="Intel's extension is not published for this system")
    def test_two_processes_train_the_specified_model_with_ipex_too(self, tmp_path: Path) -> None:
        self.check_conformance(self.trained_by_two(tmp_path, "conformance", "--engine", "ipex"))


def test_the_place_among_the_ranks_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world() == World()
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    for name, value in zip(variables, (5, 8, 1, 2, 4), strict=True):
        monkeypatch.setenv(name, str(value))
    assert world() == World(5, 8, 1, 2, 4)
