"""The search for the largest batch, on machines invented for the purpose."""

import pytest

from shared_spec.backend import OutOfMemory
from shared_spec.results.format import FailureKind
from shared_spec.run.child import Ended
from shared_spec.run.max_batch import FAULT, FITS, OUT_OF_MEMORY, TOO_SLOW, Try, predicted_bytes, search
from shared_spec.run.parent import classify
from shared_spec.run.worker import failure_of

GIB = 2**30


class Machine:
    """Fits batches up to `capacity`; a batch takes 1 GiB and 10 MiB per image."""

    def __init__(self, capacity: int, verdict: str = OUT_OF_MEMORY) -> None:
        self.capacity, self.verdict = capacity, verdict
        self.asked: list[int] = []

    def attempt(self, batch_size: int) -> Try:
        self.asked.append(batch_size)
        if batch_size > self.capacity:
            return Try(batch_size, self.verdict, "no", None)
        return Try(batch_size, FITS, None, {"memory": {"host_peak": GIB + batch_size * 10 * 2**20}})


@pytest.mark.parametrize("capacity", [32, 33, 47, 64, 100, 1000, 4095])
def test_finds_the_largest_batch_to_within_its_resolution(capacity: int) -> None:
    machine = Machine(capacity)
    found = search(machine.attempt, 32, 65536, None)
    assert found.batch_size is not None
    assert found.batch_size <= capacity < found.batch_size * (1 + 1 / 16) + 2
    assert [t.batch_size for t in found.tries] == machine.asked
    assert len(set(machine.asked)) == len(machine.asked)


def test_goes_no_further_than_it_may() -> None:
    machine = Machine(10**9)
    found = search(machine.attempt, 32, 300, None)
    assert found.batch_size == 300
    assert machine.asked == [32, 64, 128, 256, 300]
    assert found.ended_by == "--max-batch 300"


def test_never_tries_what_would_not_fit_a_shared_memory() -> None:
    machine = Machine(10**9)
    found = search(machine.attempt, 32, 65536, 5 * GIB)
    assert max(machine.asked) * 10 * 2**20 + GIB <= 5 * GIB
    assert found.batch_size is not None
    assert found.batch_size > 350  # 409 would fill the bound
    assert "allowed" in found.ended_by


@pytest.mark.parametrize("verdict", [OUT_OF_MEMORY, TOO_SLOW])
def test_a_first_batch_that_does_not_fit_is_told(verdict: str) -> None:
    found = search(Machine(20, verdict).attempt, 32, 65536, None)
    assert found.tries[0].outcome == verdict
    assert found.batch_size is None or found.batch_size <= 20


def test_a_fault_ends_the_search_and_is_not_taken_for_memory() -> None:
    machine = Machine(100, FAULT)
    found = search(machine.attempt, 32, 65536, None)
    assert machine.asked == [32, 64, 128]
    assert found.batch_size == 64
    assert found.ended_by == "batch 128: fault"


def test_prediction_is_a_line_through_the_two_largest() -> None:
    machine = Machine(10**9)
    tries = [machine.attempt(32), machine.attempt(64)]
    assert predicted_bytes(tries[:1], 128) is None
    assert predicted_bytes(tries, 128) == pytest.approx(GIB + 128 * 10 * 2**20)


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        (None, FITS),
        (failure_of(OutOfMemory("full"))[0], OUT_OF_MEMORY),
        (failure_of(MemoryError())[0], OUT_OF_MEMORY),
        (Ended(-9, True, False, False).kind, OUT_OF_MEMORY),
        (Ended(-9, False, False, True).kind, OUT_OF_MEMORY),
        (Ended(-9, False, True, False).kind, TOO_SLOW),
        (failure_of(ValueError("x"))[0], FAULT),
        (Ended(0, False, False, False).kind, FAULT),
        (Ended(-11, False, False, False).kind, FAULT),
        (Ended(-9, False, False, False).kind, FAULT),
    ],
)
def test_out_of_memory_is_told_from_a_time_limit_and_a_bug(failure: FailureKind | None, verdict: str) -> None:
    assert classify(64, {"failure": failure, "reason": failure, "measurements": None}).outcome == verdict
