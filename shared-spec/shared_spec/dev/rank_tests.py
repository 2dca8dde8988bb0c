"""What each platform's tests/test_ranks.py has to show, told once: two ranks on this host, and on two hosts.

A platform's test class inherits from `RankTests` and says what is its own: how ranks find one another, and what it calls
its engine. Each test goes through the real command line.
"""

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest

from shared_spec import files
from shared_spec.dev import testing
from shared_spec.results import format

EPOCHS = 3
STEPS = 8
"""Of a training window at least: those of an epoch."""

Words = list[str]


class RankTests(ABC):
    """Tests of several ranks.

    Attributes:
        package: whose `run` is tested.
        options: of every run: device, engine.
        engine, transport: as the result names them on this host.
        rank_variable: environment variable in which a process finds its rank.
        rank_timeout: seconds until a rank on another host is given up; ranks wait as long for one another to start.
        epochs_to_interrupt: so many that a rank is killed before the last; steps take milliseconds.
    """

    package: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    engine: ClassVar[str]
    transport: ClassVar[str] = "tcp"
    rank_variable: ClassVar[str]
    epochs_to_interrupt: ClassVar[int] = 40
    rank_timeout: ClassVar[int] = 60

    @abstractmethod
    def on_host(self, rank: int, words: Words, folder: Path) -> tuple[Words, dict[str, str]]:
        """How rank `rank` of two is started on its host: a command that runs Python on `words`, and its environment.

        Args:
            folder: that both hosts can read.
        """

    def rank_process(self, run: int, rank: int) -> psutil.Process:
        """The process of a rank that the process `run` has started."""
        return testing.rank_process(run, self.rank_variable, rank)

    def check_communication(self, training: dict[str, Any]) -> None:
        """What the engine tells of its exchange of gradients, in the measurements of the training phase: nothing."""
        assert training["parallel"]["communication_seconds"] is None

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
        """Losses of the full training by one process, which those of several have to equal."""
        out = tmp_path_factory.mktemp("alone")
        asked = ("--phases", "convergence", *cls.options)
        result = testing.run(cls.package, testing.small_spec(EPOCHS), out, *asked)
        losses: list[float] = result["phases"][0]["measurements"]["loss_trace"]
        return losses

    def trained_by_two(self, out: Path, phases: str, *options: str) -> dict[str, dict[str, Any]]:
        """Measurements by phase of a run of two ranks on this host, whose result is valid."""
        asked = ("--phases", phases, "--nproc", 2, *options)
        result = testing.run(self.package, testing.small_spec(EPOCHS), out, *asked)
        assert format.problems(result) == []
        named = {"engine": self.engine, "transport": self.transport}
        assert result["parallel"] == {"world_size": 2, "scaling": "strong", "hosts": 1, **named}
        return {outcome["phase"]: outcome["measurements"] for outcome in result["phases"]}

    def check_conformance(self, measured: dict[str, dict[str, Any]]) -> None:
        """Model, gradients, updates and the losses of a training are the specified ones."""
        assert [check for check in measured["conformance"]["checks"] if not check["passed"]] == []

    def check_losses(self, shared: list[float], alone: list[float]) -> None:
        """A training by several, or as much of one as a window takes, loses what that of one process does."""
        steps = min(len(shared), len(alone))
        assert steps >= STEPS
        np.testing.assert_allclose(shared[:steps], alone[:steps], rtol=1e-5)

    def test_two_processes_are_one_training(self, alone: list[float], tmp_path: Path) -> None:
        measured = self.trained_by_two(tmp_path, "conformance,training", *self.options)
        self.check_conformance(measured)
        training = measured["training"]
        assert training["parallel"]["params_equal"] is True
        assert len(training["parallel"]["rank_window_blocks"]) == len(training["parallel"]["rank_step_seconds"]) == 2
        self.check_communication(training)
        self.check_losses(training["loss_trace"], alone)

    def test_a_killed_rank_ends_the_phase_and_the_training_goes_on_alone(self, tmp_path: Path) -> None:
        spec, asked = testing.small_spec(self.epochs_to_interrupt), ("--phases", "convergence", *self.options)
        outcome = testing.kill_one_of_two(self.package, spec, tmp_path, self.rank_process, *asked)
        assert outcome["status"] == "failed"
        assert outcome["reason"] == "rank 1 was killed by SIGKILL"
        (outcome,) = testing.run(self.package, spec, tmp_path, *asked)["phases"]
        measured = outcome["measurements"]
        assert measured["parallel"] == {"world_sizes": [2, 1]}
        assert measured["resumed"] == 1
        assert len(measured["evaluations"]) == 2 * self.epochs_to_interrupt

    # Two hosts, which are network namespaces of this one.

    @pytest.fixture
    def hosts(self) -> Iterator[list[Words]]:
        if reason := testing.why_not_two_hosts():
            pytest.skip(reason)
        with testing.two_hosts() as entered:
            yield entered

    def start_on(self, hosts: list[Words], epochs: int, out: Path, *asked: object) -> list["subprocess.Popen[str]"]:
        lines, envs = [], []
        for rank, enter in enumerate(hosts):
            words = testing.command(self.package, testing.small_spec(epochs), out / f"host-{rank}", *asked)
            line, env = self.on_host(rank, [*words, *self.options], out)
            lines.append([*enter, *line])
            envs.append(env)
        return testing.run_on_hosts(lines, envs)

    def test_two_hosts_are_one_training(self, alone: list[float], hosts: list[Words], tmp_path: Path) -> None:
        processes = self.start_on(hosts, EPOCHS, tmp_path, "--phases", "convergence")
        outputs = [process.communicate(timeout=200)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        result = testing.newest_result(tmp_path / "host-0")
        assert result["parallel"]["hosts"] == 2
        (convergence,) = (outcome["measurements"] for outcome in result["phases"])
        assert convergence["parallel"] == {"world_sizes": [2]}
        assert len(convergence["loss_trace"]) == len(alone)
        self.check_losses(convergence["loss_trace"], alone)
        assert not list((tmp_path / "host-1").glob("*.json"))

    def test_a_rank_killed_on_another_host_ends_both_and_leaves_the_checkpoint(
        self, hosts: list[Words], tmp_path: Path
    ) -> None:
        asked = ("--phases", "convergence", "--rank-timeout", self.rank_timeout)
        processes = self.start_on(hosts, self.epochs_to_interrupt, tmp_path, *asked)
        testing.wait_for(lambda: list(tmp_path.glob("host-0/.runs/*/convergence-0.safetensors")))
        self.kill_rank_on_its_host(processes[1])
        outputs = [process.communicate(timeout=240)[0] for process in processes]
        self.check_lost_rank([process.returncode for process in processes], outputs)
        (kept,) = (tmp_path / "host-0").glob(".runs/*/ranks-2/06-convergence-0.failed.json")
        assert files.read(kept)["status"] == "failed"
        assert list(tmp_path.glob("host-0/.runs/*/convergence-0.safetensors")), "from which the training goes on"

    def kill_rank_on_its_host(self, started: "subprocess.Popen[str]") -> None:
        """Kill the rank that `started` is; where that is a launcher, its child."""
        started.kill()

    @abstractmethod
    def check_lost_rank(self, statuses: list[int], outputs: list[str]) -> None:
        """How the processes on both hosts end where the second host's rank was killed, and what they write."""


def python(words: Words) -> Words:
    return [sys.executable, *words]


def kill_child(launcher: "subprocess.Popen[str]") -> None:
    """Kill the one process that a launcher has started."""
    (rank,) = psutil.Process(launcher.pid).children()
    os.kill(rank.pid, signal.SIGKILL)
