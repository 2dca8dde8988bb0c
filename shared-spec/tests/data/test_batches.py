"""Batches: the same bits on every machine, at every step, in whatever order steps are asked for."""

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_spec.data import synthetic
from shared_spec.data.augmentation import crop_and_flip
from shared_spec.data.batches import HostBatch, Prefetcher, TrainingBatches, soft_targets
from shared_spec.data.dataset import Dataset
from shared_spec.workload.interpolation import interpolation_matrix
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import DataSpec, Spec


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def stand_in(tiny_spec: Spec) -> Dataset:
    return synthetic.dataset(tiny_spec)


def make(spec: Spec, dataset: Dataset, batch_size: int = 4, seed: int = 0) -> TrainingBatches:
    return TrainingBatches(spec, dataset.train_images, dataset.train_labels, batch_size, seed)


# Random bits


def philox_block(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 on Python's integers (Salmon et al., SC 2011, section 4.3): four words of one counter."""
    mask = 2**64 - 1
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            product1 >> 64 ^ counter[1] ^ key[0],
            product1 & mask,
            product0 >> 64 ^ counter[3] ^ key[1],
            product0 & mask,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def test_the_reference_gives_the_published_values() -> None:
    """Known answers of Random123 (kat_vectors, philox4x64 10)."""
    zero = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox_block([0] * 4, [0] * 2) == zero
    ones = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert philox_block([2**64 - 1] * 4, [2**64 - 1] * 2) == ones


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (7, 3), (2**32 - 1, 49_999)])
@pytest.mark.parametrize(
    ("purpose", "number"), [("init", 1), ("order", 2), ("augment", 3), ("synthetic", 4), ("probe", 5)]
)
def test_random_bits_are_philox_of_seed_purpose_and_index(seed: int, index: int, purpose: str, number: int) -> None:
    blocks = [philox_block([block, 0, 0, index], [seed, number]) for block in (1, 2, 3)]
    bits = random_bits(seed, purpose, index, 10)  # type: ignore[arg-type]
    assert bits.dtype == "<u8"
    assert bits.tolist() == [word for block in blocks for word in block][:10]


# Crop and flip


def crop_and_flip_one(image: np.ndarray, word: int, data: DataSpec) -> np.ndarray:
    """The definition, pixel by pixel: a pixel that comes from outside of the image is black."""
    size, pad = data.image_size, data.crop_padding
    row = (word % 2**16) * (2 * pad + 1) // 2**16 - pad
    column = (word // 2**16 % 2**16) * (2 * pad + 1) // 2**16 - pad
    flip = (word // 2**32 % 2**16) / 2**16 < data.flip_probability
    result = np.zeros_like(image)
    for y in range(size):
        for x in range(size):
            from_y, from_x = y + row, (size - 1 - x if flip else x) + column
            if 0 <= from_y < size and 0 <= from_x < size:
                result[y, x] = image[from_y, from_x]
    return result


EXTREMES = [0, 0xFFFF, 0xFFFF << 16, 0x7FFF << 32, 0x8000 << 32, 2**64 - 1]


@given(words=st.lists(st.integers(0, 2**64 - 1) | st.sampled_from(EXTREMES), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_crop_and_flip_equals_the_definition(standard_spec: Spec, words: list[int]) -> None:
    images = np.random.default_rng(0).integers(1, 256, (len(words), 32, 32, 3), np.uint8)
    found = crop_and_flip(images, np.array(words, np.uint64), standard_spec.data)
    expected = np.stack([crop_and_flip_one(*pair, standard_spec.data) for pair in zip(images, words, strict=True)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("padding", "probability"), [(0, 0.0), (0, 1.0), (1, 0.25), (16, 0.5)])
def test_crop_and_flip_for_other_settings(standard_spec: Spec, padding: int, probability: float) -> None:
    data = standard_spec.data.changed(crop_padding=padding, flip_probability=probability)
    images = np.random.default_rng(0).integers(1, 256, (16, 32, 32, 3), np.uint8)
    bits = random_bits(0, "augment", 0, 16)
    expected = np.stack([crop_and_flip_one(image, int(word), data) for image, word in zip(images, bits, strict=True)])
    np.testing.assert_array_equal(crop_and_flip(images, bits, data), expected)


def test_crop_and_flip_leaves_its_input_alone(standard_spec: Spec) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    before = images.copy()
    crop_and_flip(images, np.zeros(8, np.uint64), standard_spec.data)
    np.testing.assert_array_equal(images, before)


def test_all_crops_are_equally_likely_and_half_are_flipped(standard_spec: Spec) -> None:
    """One white pixel in the middle shows where the crop was taken; 81 offsets and 2 flips among 9,000 images."""
    images = np.zeros((9_000, 32, 32, 3), np.uint8)
    images[:, 16, 12] = 255  # column 12 goes to 19 when flipped, so that 8..16 and 15..23 tell flips apart but for 2
    cropped = crop_and_flip(images, random_bits(3, "augment", 0, 9_000), standard_spec.data)[..., 0]
    rows, columns = np.divmod(cropped.reshape(len(cropped), -1).argmax(1), 32)
    assert np.bincount(rows, minlength=32)[12:21].sum() == len(images)
    expected = len(images) / 9
    assert np.abs(np.bincount(rows, minlength=32)[12:21] - expected).max() < 5 * expected**0.5
    assert abs((columns > 16).sum() - len(images) * 7 / 18) < 5 * (len(images) / 4) ** 0.5


# Soft targets


def test_soft_targets(standard_spec: Spec) -> None:
    targets = soft_targets(np.array([3, 99, 0]), 100, 0.1)
    assert (targets.shape, targets.dtype) == ((3, 100), np.float32)
    assert targets.argmax(1).tolist() == [3, 99, 0]
    assert targets[0, 3] == np.float32(0.901)
    assert set(np.delete(targets[0], 3).tolist()) == {np.float32(0.001).item()}
    np.testing.assert_allclose(targets.sum(1, dtype=np.float64), 1, atol=1e-7)


@given(smoothing=st.floats(0, 0.999), classes=st.integers(100, 300))
def test_soft_targets_are_distributions(smoothing: float, classes: int) -> None:
    targets = soft_targets(np.array([0, classes - 1]), classes, smoothing)
    assert targets.min() >= 0
    np.testing.assert_allclose(targets.sum(1, dtype=np.float64), 1, atol=1e-6)


# Interpolation


def interpolate(line: list[float], target: int) -> list[float]:
    """Bilinear upscaling of one line with half-pixel centres, by a hand-written loop."""
    source, result = len(line), []
    for i in range(target):
        position = min(max((i + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        left = int(position)
        right = min(left + 1, source - 1)
        result.append(line[left] * (1 - (position - left)) + line[right] * (position - left))
    return result


def test_interpolation_by_two_has_the_known_weights() -> None:
    """Quarters and three quarters inside, the edge pixel itself at either end."""
    expected = [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]]
    assert interpolation_matrix(3, 6).tolist() == expected


def test_interpolation_by_seven_has_the_known_weights() -> None:
    """Half-pixel centres: output 3 lies on input 0, outputs before it outside, output 4 a seventh of the way to 1."""
    matrix = interpolation_matrix(32, 224)
    assert (matrix.shape, matrix.dtype) == ((224, 32), np.float32)
    assert matrix[:4, 0].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(matrix[3:11, 0], np.arange(7, -1, -1) / 7, atol=6e-8)
    np.testing.assert_allclose(matrix[3:11, 1], np.arange(8) / 7, atol=6e-8)
    assert matrix[220:, 31].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
    assert sha256(matrix) == "7eeb7b5d6512246bfada9615be5742648e0a783a729808b2f487d19e7777ccd0"


@given(source=st.integers(1, 40), factor=st.integers(1, 8))
@settings(deadline=None)
def test_interpolation_equals_a_loop(source: int, factor: int) -> None:
    line = np.random.default_rng(source).random(source)
    matrix = interpolation_matrix(source, source * factor)
    np.testing.assert_allclose(matrix.sum(1, dtype=np.float64), 1, atol=1e-7)
    np.testing.assert_allclose(matrix @ line, interpolate(line.tolist(), source * factor), atol=1e-6)


# Batches by step


def test_batches_are_the_same_everywhere(tiny_spec: Spec, stand_in: Dataset) -> None:
    batches = make(tiny_spec, stand_in, seed=1)
    first, later = batches.batch(0), batches.batch(16 * 5 + 7)
    assert (
        sha256(random_bits(0, "order", 0, 50_000).argsort(kind="stable").astype(np.int64))
        == "21eabb25efdebdf2b02ee5aad720e2b3a6f0cb59e8fe85a325252b1a7d2ecba2"
    )
    assert sha256(first.images) == "dec395b63d03ad4e8c0c7b4eb9cba71da3b0ffbc3da43c9912a31239e9b393a2"
    assert sha256(first.targets) == "131478ce6f116dee39befafc15224be7b871d490a374963b0582e7b45e399aaa"
    assert sha256(later.images) == "6dd75a58ef1b7ddd336e7f37e04df40ef88e05f6b92c6af8607e1912fe4fdbf5"


@given(steps=st.lists(st.integers(0, 80), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_any_step_in_any_order_equals_the_sequence(tiny_spec: Spec, stand_in: Dataset, steps: list[int]) -> None:
    sequential, random_access = make(tiny_spec, stand_in), make(tiny_spec, stand_in)
    sequence = [sequential.batch(step) for step in range(max(steps) + 1)]
    for step in steps:
        batch = random_access.batch(step)
        np.testing.assert_array_equal(batch.images, sequence[step].images)
        np.testing.assert_array_equal(batch.targets, sequence[step].targets)


def without_augmentation(spec: Spec) -> Spec:
    return spec.changed(data=spec.data.changed(crop_padding=0, flip_probability=0.0))


def epoch_labels(batches: TrainingBatches, epoch: int) -> list[int]:
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    return [label for step in steps for label in batches.batch(step).targets.argmax(1).tolist()]


def test_an_epoch_shows_every_image_once_with_its_label(tiny_spec: Spec, stand_in: Dataset) -> None:
    batches = make(without_augmentation(tiny_spec), stand_in)
    shown = [batches.batch(step) for step in range(16, 32)]
    images = np.concatenate([batch.images for batch in shown])
    labels = np.concatenate([batch.targets for batch in shown]).argmax(1)
    assert sorted(labels.tolist()) == list(range(64))  # the stand-in's first 64 labels are 0 to 63
    np.testing.assert_array_equal(images, stand_in.train_images[labels])


def test_order_differs_by_epoch_and_seed(tiny_spec: Spec, stand_in: Dataset) -> None:
    batches = make(tiny_spec, stand_in)
    orders = [epoch_labels(batches, 0), epoch_labels(batches, 1), epoch_labels(make(tiny_spec, stand_in, seed=1), 0)]
    assert len({tuple(order) for order in orders}) == 3


def test_augmentation_differs_by_epoch(tiny_spec: Spec, stand_in: Dataset) -> None:
    batches = make(tiny_spec, stand_in)
    epochs = [{}, {}]
    for step in range(32):
        batch = batches.batch(step)
        epochs[step // 16] |= dict(zip(batch.targets.argmax(1).tolist(), batch.images, strict=True))
    differing = sum(not np.array_equal(epochs[0][label], epochs[1][label]) for label in range(64))
    assert differing > 55


def test_images_that_fill_no_batch_are_left_out_of_the_epoch(tiny_spec: Spec, stand_in: Dataset) -> None:
    batches = make(tiny_spec, stand_in, batch_size=24)
    assert batches.steps_per_epoch == 2
    assert {len(batches.batch(step).images) for step in range(4)} == {24}
    assert len(set(epoch_labels(batches, 1))) == 48


def test_only_the_specified_number_of_images_is_used(tiny_spec: Spec) -> None:
    more = synthetic.dataset(tiny_spec.changed(data=tiny_spec.data.changed(train_images=100)))
    assert set(epoch_labels(make(tiny_spec, more), 0)) == set(range(64))


# Prefetching


def test_prefetcher_hands_over_in_order_from_any_step(tiny_spec: Spec, stand_in: Dataset) -> None:
    expected = make(tiny_spec, stand_in)
    with make(tiny_spec, stand_in).prefetched(first_step=13) as ahead:
        for step in range(13, 40):
            np.testing.assert_array_equal(next(ahead).images, expected.batch(step).images)


class Source:
    """Stands in for TrainingBatches: images hold their step; fails at a given one."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.fails_at, self.made = fails_at, 0
        self.enough = threading.Event()

    def batch(self, step: int) -> HostBatch:
        if step == self.fails_at:
            raise MemoryError(f"at step {step}")
        self.made += 1
        if self.made >= 3:
            self.enough.set()
        return HostBatch(np.full((1, 1, 1, 3), step, np.uint8), np.zeros((1, 1), np.float32))


def test_prefetcher_stays_a_bounded_number_ahead() -> None:
    source = Source()
    with Prefetcher(source, 0, ahead=2) as batches:  # type: ignore[arg-type]
        assert source.enough.wait(10)
        threading.Event().wait(0.3)
        assert source.made == 3, "two in the queue and one in hand"
        next(batches)
    assert source.made <= 4


def test_prefetcher_passes_on_an_error_after_the_batches_before_it() -> None:
    with Prefetcher(Source(fails_at=3), 0, ahead=8) as batches:  # type: ignore[arg-type]
        assert [int(next(batches).images[0, 0, 0, 0]) for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(MemoryError, match="at step 3"):
                next(batches)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_prefetcher_closes_without_hanging(tiny_spec: Spec, stand_in: Dataset, taken: int) -> None:
    before = set(threading.enumerate())
    batches = make(tiny_spec, stand_in).prefetched()
    for _ in range(taken):
        next(batches)
    closing = threading.Thread(target=batches.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert set(threading.enumerate()) == before
    assert list(batches) == []
    batches.close()


def test_prefetcher_closes_after_an_error_and_when_its_user_fails() -> None:
    batches = Prefetcher(Source(fails_at=0), 0, ahead=1)  # type: ignore[arg-type]
    batches.close()
    with pytest.raises(KeyboardInterrupt), Prefetcher(Source(), 0, ahead=1):  # type: ignore[arg-type]
        raise KeyboardInterrupt
