"""Several ranks: as threads with a group of their own for the loops, as processes through the real command line."""

import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fake_device import IDLE, FakeDevice, Meter
from fake_platform.backend import FakeBackend
from fake_runs import command, only_result, quick, start_hanging, wait_for
from fake_training import Killed, TrainingBackend, World
from reference_backend import ReferenceBackend

from shared_spec import files
from shared_spec.conformance import checks as conformance_checks
from shared_spec.conformance import golden, questions
from shared_spec.data import cifar100
from shared_spec.data.batches import TrainingBatches
from shared_spec.measure import training as measure_training
from shared_spec.measure.convergence import Convergence, evaluate
from shared_spec.measure.training import Trainer
from shared_spec.ranks import (
    ALONE,
    Group,
    RanksApart,
    agreed,
    check_same,
    decided,
    gathered,
    gathered_values,
    shared_arrays,
    slice_of,
)
from shared_spec.results import format
from shared_spec.results.measurements import Check, RanksConvergence
from shared_spec.results.measurements import Convergence as ConvergenceMeasurements
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


class Exchange:
    """Where ranks that are threads meet; when one has failed, nobody waits for it."""

    def __init__(self, size: int) -> None:
        self.size, self.failed = size, False
        self.turns: defaultdict[int, dict[int, np.ndarray]] = defaultdict(dict)
        self.changed = threading.Condition()

    def put(self, turn: int, rank: int, words: np.ndarray) -> np.ndarray:
        with self.changed:
            rows = self.turns[turn]
            rows[rank] = words
            self.changed.notify_all()
            self.changed.wait_for(lambda: len(rows) == self.size or self.failed, 60)
            if len(rows) < self.size:
                raise ConnectionError("another rank has failed")
            return np.stack([rows[rank] for rank in range(self.size)])

    def fail(self) -> None:
        with self.changed:
            self.failed = True
            self.changed.notify_all()


class ThreadGroup:
    """A rank that is a thread."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        self.rank, self.size, self.exchange, self.turn = rank, exchange.size, exchange, 0

    def describe(self) -> dict[str, Any]:
        return {"engine": "threads", "transport": "memory", "hosts": 1}

    def all_gather(self, words: np.ndarray) -> np.ndarray:
        assert words.dtype == np.int32
        self.turn += 1
        return self.exchange.put(self.turn, self.rank, words)


def on_ranks(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """What `work` returns, or the exception that it raises, on each of `size` ranks."""
    exchange = Exchange(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadGroup(rank, exchange))
        except Exception as error:
            found[rank] = error
            exchange.fail()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


# What is built on a group.


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (0,)])
def test_arrays_are_gathered_bit_for_bit(dtype: type, shape: tuple[int, ...]) -> None:
    arrays = [np.random.default_rng(rank).random(shape).astype(dtype) for rank in range(3)]
    for found in on_ranks(3, lambda group: gathered(group, arrays[group.rank])):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.stack(arrays))


def test_values_of_different_lengths_are_gathered_in_order_of_rank() -> None:
    values = [{"a": [1.5, None]}, "x" * 1000, [0.1] * 7]
    assert on_ranks(3, lambda group: gathered_values(group, values[group.rank])) == [values] * 3


def test_rank_0_decides() -> None:
    assert on_ranks(3, lambda group: decided(group, 10 + group.rank)) == [10] * 3
    assert on_ranks(2, lambda group: agreed(group, ["rank", group.rank])) == [["rank", 0]] * 2


def test_arrays_of_rank_0_reach_all() -> None:
    state = {"step": np.array(7, np.int64), "param/a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for found in on_ranks(3, lambda group: shared_arrays(group, state if group.rank == 0 else None)):
        assert found.keys() == state.keys()
        for name, value in state.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_ranks_that_differ_all_hear_of_it() -> None:
    found = on_ranks(3, lambda group: check_same(group, "one" if group.rank < 2 else "other", "parameters"))
    assert [str(error) for error in found] == ["parameters: rank 2 differs from rank 0"] * 3
    assert all(isinstance(error, RanksApart) for error in found)


def test_one_process_asks_nobody() -> None:
    assert gathered(ALONE, np.ones(2)).shape == (1, 2)
    assert agreed(ALONE, {"a": 1}) == {"a": 1}
    assert decided(ALONE, 5) == 5
    assert list(shared_arrays(ALONE, {"a": np.ones(1)})) == ["a"]
    check_same(ALONE, "x", "nothing")


# Batches.


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_rows_make_the_same_global_batch(tiny_spec: Spec, size: int) -> None:
    data = cifar100.synthetic(tiny_spec)

    def batches(group: Group) -> TrainingBatches:
        return TrainingBatches(tiny_spec, data.train_images, data.train_labels, 4, 0, group)

    for step in (0, 5, 17):
        whole = batches(ALONE).batch(step)
        parts = on_ranks(size, lambda group, step=step: batches(group).batch(step))
        assert {len(part.images) for part in parts} == {4 // size}
        np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
        np.testing.assert_array_equal(np.concatenate([part.targets for part in parts]), whole.targets)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    (error, *_) = on_ranks(3, lambda group: slice_of(32, group))
    assert "32 cannot be shared evenly by 3 ranks" in str(error)


# Measuring.


@pytest.fixture
def measured_spec(tiny_spec: Spec) -> Spec:
    rules = tiny_spec.measuring.changed(block_steps=2, block_seconds=0.5)
    profile = tiny_spec.profiles.quick.changed(
        window_min_steps=8, window_seconds=2.0, step_samples=3, warmup_max_seconds=20.0
    )
    return tiny_spec.changed(measuring=rules, profiles=tiny_spec.profiles.changed(quick=profile))


def measure(spec: Spec, group: Group, part: bool = False) -> tuple[dict[str, Any], int]:
    """Training measurements of a rank whose own clock runs faster the higher its number, and its steps."""
    device = FakeDevice({"train_step": 0.1 * (1 + group.rank)})
    backend = FakeBackend(spec, "cpu", "fp32", "fake", device.on_work)
    backend.group = group
    backend.load_params(params.initial(spec))
    if part and group.rank == 1:
        backend.params["head.bias"] = backend.params["head.bias"] + np.float32(1e-6)
    data = cifar100.synthetic(spec)
    batches = TrainingBatches(spec, data.train_images, data.train_labels, 4, 0, group)
    with batches.prefetched() as prefetched:
        trainer = Trainer(backend, spec, iter(prefetched), 4, device.clock)
        return measure_training.measure_training(trainer, spec.profiles.quick, IDLE, Meter(device.clock)), backend.steps


def test_all_ranks_make_the_steps_that_rank_0s_clock_asks_for(measured_spec: Spec) -> None:
    (alone, steps), *_ = on_ranks(1, lambda group: measure(measured_spec, group))
    assert alone.parallel is None
    found = on_ranks(2, lambda group: measure(measured_spec, group))
    assert [count for _, count in found] == [steps, steps]
    first, second = (measured for measured, _ in found)
    assert first.parallel == second["parallel"]
    told = first.parallel
    assert told.rank_window_blocks == [first.window_blocks, second["window_blocks"]]
    assert told.rank_step_seconds == (pytest.approx([0.101] * 3), pytest.approx([0.201] * 3))
    assert (told.communication_seconds, told.overlapped_seconds) == (0.002, 0.001)
    assert told.params_equal is True
    assert first.changed(parallel=None) == alone


def test_training_whose_ranks_part_fails(measured_spec: Spec) -> None:
    for error in on_ranks(2, lambda group: measure(measured_spec, group, part=True)):
        assert isinstance(error, RanksApart)
        assert "parameters after the training steps: rank 1" in str(error)


# Full training.


def converge(spec: Spec, size: int, checkpoint: Path, kill_at: int | None = None, part: int = -1) -> list[Any]:
    data = cifar100.synthetic(spec)

    def work(group: Group) -> ConvergenceMeasurements:
        world = World()
        world.now += 1000 * group.rank  # hosts' clocks have nothing in common
        world.kill_at = kill_at
        backend = TrainingBackend(spec, "cpu", "fp32", "fake")
        backend.world, backend.data, backend.group = world, data, group
        path = checkpoint if group.rank == 0 else checkpoint.with_name("another host's")
        training = Convergence(backend, spec, lambda: data, 4, 0, "epochs", path, 5.0, world, world.clock)
        if group.rank == part:
            training.backend.load_params = lambda values: type(backend).load_params(  # type: ignore[method-assign]
                backend, {**values, "head.bias": values["head.bias"] + np.float32(1)}
            )
        return training.run()

    return on_ranks(size, work)


@pytest.fixture
def short_spec(tiny_spec: Spec) -> Spec:
    return tiny_spec.changed(training=tiny_spec.training.changed(epochs=3))  # 16 steps an epoch


def test_a_training_ends_the_same_with_any_number_of_ranks(short_spec: Spec, tmp_path: Path) -> None:
    (alone,) = converge(short_spec, 1, tmp_path / "alone")
    assert alone.parallel is None
    for size in (2, 4):
        first, *others = converge(short_spec, size, tmp_path / f"shared-{size}")
        assert first.parallel == RanksConvergence(world_sizes=(size,))
        assert {other.final_params for other in others} == {first.final_params} == {alone.final_params}
        assert (first.images, first.loss_trace) == (alone.images, alone.loss_trace)
    assert not (tmp_path / "another host's").exists()


def test_a_training_goes_on_with_another_number_of_ranks(short_spec: Spec, tmp_path: Path) -> None:
    (alone,) = converge(short_spec, 1, tmp_path / "alone")
    path = tmp_path / "checkpoint"
    assert all(isinstance(error, Killed) for error in converge(short_spec, 2, path, kill_at=20))
    assert all(isinstance(error, Killed) for error in converge(short_spec, 4, path, kill_at=40))
    (last,) = converge(short_spec, 1, path)
    assert last.parallel == RanksConvergence(world_sizes=(2, 4, 1))
    assert last.resumed == 2
    assert last.final_params == alone.final_params
    assert last.loss_trace == alone.loss_trace


def test_a_training_whose_ranks_part_fails_at_the_end_of_the_epoch(short_spec: Spec, tmp_path: Path) -> None:
    for error in converge(short_spec, 2, tmp_path / "c", part=1):
        assert isinstance(error, RanksApart)
        assert str(error) == "parameters at the end of epoch 1: rank 1 differs from rank 0"


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_shared_evaluation_gives_the_very_same_figures(tiny_spec: Spec, size: int) -> None:
    spec = tiny_spec.changed(data=tiny_spec.data.changed(test_images=27))
    data = cifar100.synthetic(spec)

    def work(group: Group) -> tuple[float, float]:
        backend = ReferenceBackend(spec, "cpu", "fp32", "numpy")
        backend.group = group
        backend.load_params(questions._large(spec))
        return evaluate(backend, data, 1)  # one at a time: NumPy's products depend on the batch in their last bits

    alone = work(ALONE)
    assert alone[1] > 0
    assert on_ranks(size, work) == [alone] * size


# Conformance.


def trace_of(spec: Spec, group: Group, averages: bool = True) -> dict[str, Check]:
    backend = ReferenceBackend(spec, "cpu", "fp32", "numpy")
    backend.group, backend.averages = group, averages
    return {check.name: check for check in conformance_checks.run(backend, spec, "fp32", clock=backend.clock)}


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_share_the_batch_pass_every_check(tiny_spec: Spec, size: int) -> None:
    golden.golden(tiny_spec)
    for checks in on_ranks(size, lambda group: trace_of(tiny_spec, group)):
        assert [name for name, check in checks.items() if not check.passed] == []
        assert "ranks" in checks


def test_ranks_that_do_not_average_fail(tiny_spec: Spec) -> None:
    golden.golden(tiny_spec)
    for checks in on_ranks(2, lambda group: trace_of(tiny_spec, group, averages=False)):
        assert not checks["trace, gradient norm"].passed
        assert not checks["trace, parameters"].passed
        assert not checks["ranks"].passed


# The real command line: processes of one host, started by --nproc.

SHARED = ("--phases", "ceiling,training,convergence,latency")


def nproc(spec: Path, out: Path, *more: object, **env: str) -> subprocess.CompletedProcess[str]:
    return quick(spec, out, *SHARED, *more, **env)


def test_nproc_leaves_one_valid_result_of_all_ranks(spec_file: Path, tmp_path: Path) -> None:
    done = nproc(spec_file, tmp_path / "r", "--nproc", 2)
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
    assert not list((tmp_path / "r" / ".runs").iterdir())


def test_weak_scaling_grows_the_global_batch(spec_file: Path, tmp_path: Path) -> None:
    done = nproc(spec_file, tmp_path / "r", "--nproc", 3, "--scaling", "weak")
    assert done.returncode == 0, done.stderr
    result = only_result(tmp_path / "r")
    assert result["parallel"]["scaling"] == "weak"
    assert result["phases"][1]["measurements"]["batch_size"] == 12


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kill:3", "rank 1 was killed by SIGKILL"),
        ("bug:3", "rank 1: ValueError: fake bug"),
        ("oom:3", "rank 1: out of memory"),
        ("part:3", "parameters after the training steps: rank 1 differs from rank 0"),
        ("hang:3", "nothing moved for 2 s: a rank has died or hangs"),
    ],
)
def test_a_rank_that_fails_fails_the_phase_alone_and_in_time(
    spec_file: Path,
    tmp_path: Path,
    fault: str,
    words: str,
) -> None:
    asked = ("--phases", "ceiling,training", "--nproc", 2, "--rank-timeout", 2)
    done = quick(spec_file, tmp_path / "r", *asked, FAKE_FAULT=fault, FAKE_FAULT_RANK="1")
    assert done.returncode == 1
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    ceiling, training = result["phases"]
    assert ceiling["status"] == "ok"
    assert words in training["reason"]
    assert training["seconds"] < 15
    done = quick(spec_file, tmp_path / "r", *asked)
    assert done.returncode == 0, done.stderr
    assert only_result(tmp_path / "r")["phases"][0] == ceiling


def test_a_killed_rank_costs_a_full_training_nothing_with_another_number(
    spec_file: Path,
    tmp_path: Path,
) -> None:
    asked = ("--phases", "convergence")
    done = quick(spec_file, tmp_path / "r", *asked, "--nproc", 2, FAKE_FAULT="kill:100", FAKE_FAULT_RANK="1")
    assert done.returncode == 1
    assert [outcome["reason"] for outcome in only_result(tmp_path / "r")["phases"]] == ["rank 1 was killed by SIGKILL"]
    done = quick(spec_file, tmp_path / "r", *asked, "--nproc", 4)
    assert done.returncode == 0, done.stderr
    newest = max((tmp_path / "r").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    result = files.read(newest)
    assert result["parallel"]["world_size"] == 4
    assert result["phases"][0]["measurements"]["parallel"] == {"world_sizes": [2, 4]}


def test_killing_the_parent_leaves_no_rank(spec_file: Path, tmp_path: Path) -> None:
    parent, _ = start_hanging(spec_file, tmp_path / "r", "--nproc", 2)
    ranks = psutil.Process(parent.pid).children(recursive=True)
    wait_for(lambda: len(psutil.Process(parent.pid).children(recursive=True)) == 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nproc", 3), "--nproc: 3 ranks cannot share the global batch of 4 evenly"),
        (("--nproc", 2, "--phases", "latency,max_batch"), "several ranks share only"),
    ],
)
def test_what_ranks_cannot_do_is_told(
    spec_file: Path,
    tmp_path: Path,
    words: tuple[object, ...],
    message: str,
) -> None:
    done = quick(spec_file, tmp_path / "r", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# Processes that a launcher has started, on any host: each is `run` itself.


def start_as_ranks(spec: Path, folder: Path, size: int, phases: str, **env: str) -> list[subprocess.Popen[str]]:
    (folder / "group").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "group").iterdir():
        stale.unlink()
    processes = []
    for rank in range(size):
        line, environment = command(
            "run", "--spec", spec, "--profile", "quick", "--data", "synthetic", "--out", folder / f"host-{rank}",
            "--phases", phases, "--rank-timeout", 3, FAKE_RANK=str(rank), FAKE_SIZE=str(size),
            FAKE_FOLDER=str(folder / "group"), **env,
        )  # fmt: skip
        processes.append(
            subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return processes


def test_run_under_a_launcher_is_one_run_of_all_ranks(spec_file: Path, tmp_path: Path) -> None:
    processes = start_as_ranks(spec_file, tmp_path, 2, "ceiling,training,convergence")
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    result = only_result(tmp_path / "host-0")
    assert format.problems(result) == []
    assert result["parallel"]["world_size"] == 2
    assert [outcome["phase"] for outcome in result["phases"]] == ["ceiling", "training", "convergence"]
    assert not (tmp_path / "host-1").exists()
    assert said[1] == ""


def test_a_rank_that_is_killed_under_a_launcher_ends_all_and_the_run_goes_on_from_there(
    spec_file: Path,
    tmp_path: Path,
) -> None:
    processes = start_as_ranks(
        spec_file, tmp_path, 2, "ceiling,convergence", FAKE_FAULT="kill:100", FAKE_FAULT_RANK="1"
    )
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [75, -9]  # 75: the watchdog's
    (kept,) = (tmp_path / "host-0").glob(".runs/*/ranks-2/01-convergence-0.json")
    assert "nothing moved for 3 s" in files.read(kept)["reason"]
    processes = start_as_ranks(spec_file, tmp_path, 4, "ceiling,convergence")
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    result = only_result(tmp_path / "host-0")
    assert result["phases"][1]["measurements"]["parallel"] == {"world_sizes": [2, 4]}


def test_each_rank_gets_its_share_of_the_cores() -> None:
    if not hasattr(os, "sched_setaffinity") or (psutil.cpu_count(logical=False) or 1) < 2:
        pytest.skip("NOT TESTED: this system has one core, or does not let a process choose its cores")
    line = (
        "import os, sys; from shared_spec.machine.facts import take_core_share; "
        "take_core_share(int(sys.argv[1]), 2); print(sorted(os.sched_getaffinity(0)))"
    )
    shares = []
    for part in range(2):
        arguments, environment = command()
        done = subprocess.run(
            [arguments[0], "-c", line, str(part)], env=environment, capture_output=True, text=True, check=True
        )
        shares.append(set(files.loads(done.stdout)))
    assert shares[0]
    assert shares[1]
    assert not shares[0] & shares[1]
