"""The stand-in for CIFAR-100: the same everywhere, and learnable."""

import hashlib

import numpy as np

from shared_spec.data import cifar100, synthetic
from shared_spec.workload.spec import Spec


def sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def test_stand_in_is_the_same_everywhere(standard_spec: Spec) -> None:
    dataset = synthetic.dataset(standard_spec)
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    assert dataset.test_images.shape == (10_000, 32, 32, 3)
    assert {dataset.train_images.dtype, dataset.test_images.dtype} == {np.dtype(np.uint8)}
    assert {dataset.train_labels.dtype, dataset.test_labels.dtype} == {np.dtype(np.int64)}
    assert dataset.source == "synthetic"
    arrays = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    assert dataset.checksums == {"synthetic_sha256": sha256(*arrays)}
    assert dataset.checksums["synthetic_sha256"] == "c93ee83d5f99f2ca699490691d739759ad2a0b357e5e3b5b7298e9a2c1d7d0f5"


def test_small_stand_in_is_the_start_of_a_large_one(tiny_spec: Spec) -> None:
    large = synthetic.dataset(tiny_spec.changed(data=tiny_spec.data.changed(train_images=2_500, test_images=1_100)))
    small = cifar100.load(None, tiny_spec)
    assert (len(small.train_images), len(small.test_images)) == (64, 32)
    np.testing.assert_array_equal(small.train_images, large.train_images[:64])
    np.testing.assert_array_equal(small.test_images, large.test_images[:32])
    assert not np.array_equal(large.train_images[:1000], large.test_images[:1000])
    assert small.checksums != large.checksums


def test_stand_in_can_be_learned_and_is_not_trivial(tiny_spec: Spec) -> None:
    """Class means of the training images, a linear rule, must classify unseen images; single pixels must not."""
    dataset = synthetic.dataset(tiny_spec.changed(data=tiny_spec.data.changed(train_images=2_000, test_images=500)))
    train, test = (images.reshape(len(images), -1) / 255 for images in (dataset.train_images, dataset.test_images))
    means = np.stack([train[dataset.train_labels == label].mean(0) for label in range(100)])
    nearest = ((test[:, None, ::8] - means[None, :, ::8]) ** 2).sum(-1).argmin(1)
    assert (nearest == dataset.test_labels).mean() > 0.95
    one_pixel = ((test[:, None, :3] - means[None, :, :3]) ** 2).sum(-1).argmin(1)
    assert (one_pixel == dataset.test_labels).mean() < 0.3
