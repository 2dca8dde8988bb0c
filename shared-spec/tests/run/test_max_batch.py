"""The search for the largest batch, on machines invented for the purpose."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_runs import asked, command, here, only_result

from shared_spec.backend import DeviceWatchdog, OutOfMemory
from shared_spec.results.format import Backend, Failed, TryDone
from shared_spec.results.measurements import FAULT, FITS, Try, TryMeasurements, TryOutcome
from shared_spec.run import max_batch
from shared_spec.run.child import Ended
from shared_spec.run.max_batch import classify, predicted_bytes, search
from shared_spec.run.worker import failure_of

GIB = 2**30
OUT_OF_MEMORY: TryOutcome = "out of memory"
TOO_SLOW: TryOutcome = "time limit"


def fitted(batch_size: int, **memory: int | None) -> Try:
    measured = TryMeasurements(
        first_step_seconds=1.0, window_blocks=((1, 1.0),), checks=None, unchecked=None, memory=memory
    )
    return Try(batch_size=batch_size, outcome=FITS, reason=None, measurements=measured)


class Machine:
    """Fits batches up to `capacity`; a batch takes 1 GiB and 10 MiB per image."""

    def __init__(self, capacity: int, verdict: TryOutcome = OUT_OF_MEMORY) -> None:
        self.capacity, self.verdict = capacity, verdict
        self.asked: list[int] = []

    def attempt(self, batch_size: int) -> Try:
        self.asked.append(batch_size)
        if batch_size > self.capacity:
            return Try(batch_size=batch_size, outcome=self.verdict, reason="no", measurements=None)
        return fitted(batch_size, host_peak=GIB + batch_size * 10 * 2**20)


@pytest.mark.parametrize("capacity", [32, 33, 47, 64, 100, 1000, 4095])
def test_finds_the_largest_batch_to_within_its_resolution(capacity: int) -> None:
    machine = Machine(capacity)
    found = search(machine.attempt, 32, 65536, lambda: None)
    assert found.batch_size is not None
    assert found.batch_size <= capacity < found.batch_size * (1 + 1 / 16) + 2
    assert [t.batch_size for t in found.tries] == machine.asked
    assert len(set(machine.asked)) == len(machine.asked)


def test_goes_no_further_than_it_may() -> None:
    machine = Machine(10**9)
    found = search(machine.attempt, 32, 300, lambda: None)
    assert found.batch_size == 300
    assert machine.asked == [32, 64, 128, 256, 300]
    assert found.ended_by == "--max-batch 300"


def test_never_tries_what_would_not_fit_a_shared_memory() -> None:
    machine = Machine(10**9)
    found = search(machine.attempt, 32, 65536, lambda: 5 * GIB)
    assert max(machine.asked) * 10 * 2**20 + GIB <= 5 * GIB
    assert found.batch_size is not None
    assert found.batch_size > 350  # 409 would fill the bound
    assert "allowed" in found.ended_by


@pytest.mark.parametrize("verdict", [OUT_OF_MEMORY, TOO_SLOW])
def test_a_first_batch_that_does_not_fit_is_told(verdict: TryOutcome) -> None:
    found = search(Machine(20, verdict).attempt, 32, 65536, lambda: None)
    assert found.tries[0].outcome == verdict
    assert found.batch_size is None or found.batch_size <= 20


def test_a_fault_ends_the_search_and_is_not_taken_for_memory() -> None:
    machine = Machine(100, FAULT)
    found = search(machine.attempt, 32, 65536, lambda: None)
    assert machine.asked == [32, 64, 128]
    assert found.batch_size == 64
    assert found.ended_by == "batch 128: fault"


def test_prediction_is_a_line_through_the_two_largest() -> None:
    machine = Machine(10**9)
    tries = [machine.attempt(32), machine.attempt(64)]
    assert predicted_bytes([], 128) is None
    assert predicted_bytes(tries[:1], 64) == pytest.approx(2 * (GIB + 32 * 10 * 2**20))
    assert predicted_bytes(tries, 128) == pytest.approx(GIB + 128 * 10 * 2**20)


def test_the_largest_batch_counts_only_if_it_trains_for_a_whole_window() -> None:
    """What fits five steps need not fit sixty seconds and an evaluation: then the next smaller one is put to it."""
    short, whole = Machine(100), Machine(90)
    found = search(short.attempt, 32, 65536, lambda: None)
    assert found.batch_size is not None
    assert found.batch_size > 90
    confirmed = max_batch.confirmed(found, whole.attempt)
    fitting = sorted((t.batch_size for t in found.tries if t.outcome == FITS), reverse=True)
    assert whole.asked == fitting[: len(whole.asked)]
    assert confirmed.batch_size == whole.asked[-1] <= 90
    assert "whole window" in confirmed.ended_by
    sizes = [t.batch_size for t in confirmed.tries]
    assert sorted(sizes) == sorted(t.batch_size for t in found.tries)  # each once: the longer try stands
    assert {t.batch_size for t in confirmed.tries if t.outcome == FITS} == {
        b for b in sizes if b <= confirmed.batch_size
    }


def test_no_batch_that_trains_for_a_whole_window_is_told() -> None:
    found = max_batch.confirmed(search(Machine(100).attempt, 32, 65536, lambda: None), Machine(20).attempt)
    assert found.batch_size is None
    assert not [t for t in found.tries if t.outcome == FITS]


class Mac:
    """16 GB, of which Metal's buffers take a GiB and 150 MiB an image, in no resident set; MLX keeps a third more."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def taken(self, batch_size: int) -> int:
        return GIB + batch_size * 150 * 2**20

    def attempt(self, batch_size: int) -> Try:
        self.asked.append(batch_size)
        taken = self.taken(batch_size)
        return fitted(batch_size, host_peak=132 * 2**20, footprint_peak=taken, mlx_peak=3 * taken // 4, mlx_cache=0)


def test_a_mac_is_never_asked_for_more_than_it_has() -> None:
    """By the resident set alone tries of 9.8 and 18.7 GiB would follow (issue 21, fault 1)."""
    mac = Mac()
    found = search(mac.attempt, 32, 65536, lambda: 5.9 * GIB)
    assert max(map(mac.taken, mac.asked)) <= 5.9 * GIB
    assert found.batch_size is not None
    assert found.batch_size == 32
    assert "allowed" in found.ended_by


def test_one_try_alone_is_too_little_to_rule_out_what_would_fit() -> None:
    mac = Mac()
    found = search(mac.attempt, 32, 65536, lambda: 11.0 * GIB)
    assert mac.asked[:2] == [32, 36]  # 64 might not fit, if all were in proportion
    assert max(map(mac.taken, mac.asked)) <= 11.0 * GIB
    assert found.batch_size is not None
    assert 64 <= found.batch_size <= 68


def test_what_a_try_took_is_the_largest_of_what_counts() -> None:
    assert max_batch.taken_bytes({"host_peak": 5, "footprint_peak": 9, "mlx_peak": 4, "mlx_cache": 3}) == 9
    assert max_batch.taken_bytes({"host_peak": 5, "footprint_peak": None, "mlx_peak": 4, "mlx_cache": 3}) == 7
    assert max_batch.taken_bytes({"host_peak": 5, "tf_peak": 100}) == 5


@pytest.mark.parametrize(("bound", "expected"), [(14.0 * GIB, 11.84 * GIB), (5.9 * GIB, 5.9 * GIB), (None, None)])
def test_the_bound_is_no_more_than_the_working_set_that_macos_recommends(
    bound: float | None, expected: float | None
) -> None:
    def failed(backend: Backend | None) -> Failed:
        return Failed.model_construct(backend=backend)

    on_a_mac = Backend.model_construct(details={max_batch.WORKING_SET: int(11.84 * GIB)})
    assert max_batch.tightened(bound, failed(on_a_mac)) == pytest.approx(expected)
    assert max_batch.tightened(bound, failed(Backend.model_construct(details={}))) == bound
    assert max_batch.tightened(bound, failed(None)) == bound


@pytest.mark.parametrize(
    ("part", "outcome"),
    [
        ({"status": "ok", "failure": None, "reason": None, "measurements": None}, FITS),
        (failure_of(OutOfMemory("full")).part(), OUT_OF_MEMORY),
        (failure_of(MemoryError("full")).part(), OUT_OF_MEMORY),
        (failure_of(DeviceWatchdog("stopped by macOS")).part(), TOO_SLOW),
        (failure_of(ValueError("x")).part(), FAULT),
        (failure_of(ValueError("out of memory")).part(), FAULT),
        (Ended(-9, over_memory=True).failure("").part(), OUT_OF_MEMORY),
        (Ended(-9, out_of_memory_kill=True).failure("").part(), OUT_OF_MEMORY),
        (Ended(-9, over_time=True).failure("").part(), TOO_SLOW),
        (Ended(-11).failure("").part(), FAULT),
        (Ended(-9).failure("").part(), FAULT),
        (Ended(1).failure("out of memory").part(), FAULT),
    ],
)
def test_out_of_memory_is_told_from_a_time_limit_and_a_bug(part: dict[str, Any], outcome: str) -> None:
    tried = classify(64, (Failed if part["failure"] else TryDone).model_construct(**part))
    assert (tried.batch_size, tried.outcome, tried.reason) == (64, outcome, part["reason"])


# Whole runs, a process a try.


def largest_batch(done: subprocess.CompletedProcess[str], out: Path) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (outcome,) = only_result(out)["phases"]
    measured: dict[str, Any] = outcome["measurements"]
    fits = [tried["batch_size"] for tried in measured["tries"] if tried["outcome"] == "fits"]
    assert measured["batch_size"] == max(fits)
    return measured


def test_each_batch_is_tried_in_its_own_process(spec_file: Path, tmp_path: Path) -> None:
    done = here(*asked(spec_file, tmp_path / "r", "max_batch"), "--max-batch", 6)
    measured = largest_batch(done, tmp_path / "r")
    assert measured["batch_size"] == 6
    assert measured["ended_by"] == "--max-batch 6"
    assert [tried["batch_size"] for tried in measured["tries"]] == [4, 6]
    assert [tried["measurements"]["whole"] for tried in measured["tries"]] == [False, True]


def test_the_search_goes_on_inside_a_limit_of_the_system(spec_file: Path, tmp_path: Path) -> None:
    """RLIMIT_DATA: the allocation itself fails, and the search finds the batch below."""
    if sys.platform != "linux":
        pytest.skip("NOT TESTED: only Linux holds processes to RLIMIT_DATA")
    limit, each = 600 << 20, 40 << 20
    line, environment = command(
        *asked(spec_file, tmp_path / "r", "max_batch"), "--max-batch", 8, FAKE_MEMORY=f"{each}:0"
    )
    done = subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    measured = largest_batch(done, tmp_path / "r")
    refused = [tried for tried in measured["tries"] if tried["outcome"] == "out of memory"]
    assert refused
    assert all(tried["reason"].startswith("out of memory: Unable to allocate") for tried in refused)
    assert measured["batch_size"] < min(tried["batch_size"] for tried in refused) <= limit // each
    assert "out of memory" in measured["ended_by"]


def test_a_try_that_takes_more_than_its_share_is_stopped(spec_file: Path, tmp_path: Path) -> None:
    """Memory that grows faster than the tries before it promised: the parent kills the try, and reports it.

    The run is a process of its own: Linux counts what a process held before `exec` in the peak of the one that it starts,
    and that of the tests may be large.
    """
    share = (300 << 20) / psutil.virtual_memory().total
    line, environment = command(
        *asked(spec_file, tmp_path / "r", "max_batch"), "--max-batch", 8, "--memory-share", f"{share:.6f}",
        FAKE_MEMORY=f"{64 << 20}:8", FAKE_STEP_SECONDS="0.1",
    )  # fmt: skip
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240, check=False)
    measured = largest_batch(done, tmp_path / "r")
    killed = next(tried for tried in measured["tries"] if tried["batch_size"] == 8)
    assert killed["outcome"] == "out of memory"
    assert "more memory than the share" in killed["reason"]
    assert 4 <= measured["batch_size"] < 8


def test_the_search_survives_the_systems_out_of_memory_killer(spec_file: Path, tmp_path: Path) -> None:
    """A control group with 600 MiB and no swap, by systemd: the kernel kills the try, not the run."""
    scope = ["systemd-run", "--user", "--scope", "--quiet", "-p", "MemoryMax=600M", "-p", "MemorySwapMax=0"]
    try:
        subprocess.run([*scope, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("NOT TESTED WITH THE KERNEL'S OUT-OF-MEMORY KILLER: no systemd here that gives a control group")
    line, environment = command(
        *asked(spec_file, tmp_path / "r", "max_batch"), "--memory-share", 1, FAKE_MEMORY=f"{64 << 20}:16"
    )
    done = subprocess.run([*scope, *line], env=environment, capture_output=True, text=True, timeout=120)
    measured = largest_batch(done, tmp_path / "r")
    reasons = [tried["reason"] for tried in measured["tries"] if tried["outcome"] == "out of memory"]
    assert "killed by the system's out-of-memory killer" in reasons


def test_a_memory_that_cannot_be_read_sets_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SystemError("returned NULL without setting an exception")

    monkeypatch.setattr(max_batch.psutil, "virtual_memory", fail)
    monkeypatch.setattr(max_batch.limits, "memory_limit", lambda: None)
    assert max_batch.memory_bound("cpu", 0.5) is None
    monkeypatch.setattr(max_batch.limits, "memory_limit", lambda: 1000)
    assert max_batch.memory_bound("cpu", 0.5) == 500
