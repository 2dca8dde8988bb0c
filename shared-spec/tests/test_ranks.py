"""What is built on a group of ranks."""

import numpy as np
import pytest
from thread_ranks import on_ranks

from shared_spec.data import synthetic
from shared_spec.data.batches import TrainingBatches
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
from shared_spec.workload.spec import Spec


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


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_rows_make_the_same_global_batch(tiny_spec: Spec, size: int) -> None:
    data = synthetic.dataset(tiny_spec)

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
