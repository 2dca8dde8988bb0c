"""The real CIFAR-100, read once: what is in it, and the batches made of it. In one file, so that one process has them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from shared_spec.data.batches import TrainingBatches
from shared_spec.data.dataset import Dataset
from shared_spec.workload.spec import Spec


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.real_data
def test_real_dataset(real_dataset: Dataset) -> None:
    assert real_dataset.train_images.shape == (50_000, 32, 32, 3)
    assert real_dataset.test_images.shape == (10_000, 32, 32, 3)
    for images, labels, n in (
        (real_dataset.train_images, real_dataset.train_labels, 500),
        (real_dataset.test_images, real_dataset.test_labels, 100),
    ):
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.flags.c_contiguous
        assert images.flags.writeable
        assert np.bincount(labels).tolist() == [n] * 100
    mean = real_dataset.train_images.reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(mean, [0.50708, 0.48655, 0.44092], atol=1e-5)
    assert real_dataset.source == "cifar-100"
    assert real_dataset.checksums == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }


@pytest.mark.real_data
def test_real_images_equal_an_independent_reading(real_dataset: Dataset, real_folder: Path) -> None:
    """The array stands in the file as it is; the first fine labels are those that others have published."""
    content = (real_folder / "train").read_bytes()
    start = content.find(real_dataset.train_images[0].transpose(2, 0, 1).tobytes())
    planes = np.frombuffer(content, np.uint8, 50_000 * 3072, start).reshape(50_000, 3, 1024)
    for channel in range(3):
        np.testing.assert_array_equal(
            real_dataset.train_images[::97, :, :, channel].reshape(-1, 1024), planes[::97, channel]
        )
    assert real_dataset.train_labels[:5].tolist() == [19, 29, 0, 11, 1]  # cattle, dinosaur, apple, boy, aquarium_fish
    assert real_dataset.test_labels[:5].tolist() == [49, 33, 72, 51, 71]  # mountain, forest, seal, mushroom, sea


@pytest.mark.real_data
def test_real_batches_are_the_same_everywhere(standard_spec: Spec, real_dataset: Dataset) -> None:
    batches = TrainingBatches(standard_spec, real_dataset.train_images, real_dataset.train_labels, 32, seed=0)
    assert batches.steps_per_epoch == 1562
    first, last = batches.batch(0), batches.batch(15 * 1562 - 1)
    assert sha256(first.images) == "4ed093425e61c4239005d12a9896f67705ae0ba6cfc3af8a0eaff043625c7e64"
    assert sha256(first.targets) == "607216fa8cb3e390db489d9cea6ce8f4e3cb1df95675e3369050fcff51464288"
    assert sha256(last.images) == "af75023aa2e541e76a43ead51b0eebe1ac7cadbd4acffbd862034ffba8094e19"
