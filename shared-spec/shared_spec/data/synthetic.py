"""A stand-in of CIFAR-100's shapes and types, bit-identical on every machine, that a model can learn.

Each of 100 classes is a pattern of 4 x 4 coloured squares of 8 pixels, under as much uniform noise. Label i is i mod
100; image i does not depend on how many there are. There are as many images as a spec uses, and no more.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

import numpy as np

from shared_spec.data.dataset import CLASSES, Dataset, Identity
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import Spec

SYNTHETIC: Literal["synthetic"] = "synthetic"
"""The value of --data that asks for the stand-in."""

_NOISE_BLOCK = 1_000
"""Images whose noise comes from one Philox stream."""
_TRAIN_BLOCK, _TEST_BLOCK = 1, 1_000
"""Numbers of the first streams of either part."""


def dataset(spec: Spec) -> Dataset:
    """The stand-in for `spec`."""
    train_labels, test_labels = _labels(spec.data.train_images), _labels(spec.data.test_images)
    train_images, test_images = _images(train_labels, _TRAIN_BLOCK), _images(test_labels, _TEST_BLOCK)
    which = _identity_of((train_images, train_labels, test_images, test_labels))
    return Dataset(train_images, train_labels, test_images, test_labels, which.source, which.checksums)


def identity(spec: Spec) -> Identity:
    """Identity of `dataset(spec)`, a block of images at a time."""
    train_labels, test_labels = _labels(spec.data.train_images), _labels(spec.data.test_images)
    train, test = _blocks(train_labels, _TRAIN_BLOCK), _blocks(test_labels, _TEST_BLOCK)
    return _identity_of(chain(train, [train_labels], test, [test_labels]))


def _identity_of(arrays: Iterable[np.ndarray]) -> Identity:
    """Identity of a stand-in by its four arrays, or by pieces of them in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return Identity(SYNTHETIC, {"synthetic_sha256": digest.hexdigest()})


def _labels(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) % CLASSES


def _images(labels: np.ndarray, first_block: int) -> np.ndarray:
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    for i, block in enumerate(_blocks(labels, first_block)):
        images[i * _NOISE_BLOCK :][: len(block)] = block
    return images


def _blocks(labels: np.ndarray, first_block: int) -> Iterator[np.ndarray]:
    """Half the class's pattern and half noise, uint8 [n, 32, 32, 3] at a time, in the order of the labels."""
    patterns = _patterns()
    for block, start in enumerate(range(0, len(labels), _NOISE_BLOCK), first_block):
        images = patterns[labels[start : start + _NOISE_BLOCK]]
        images += random_bits(0, "synthetic", block, images.size // 8).view(np.uint8).reshape(images.shape) >> 1
        yield images


def _patterns() -> np.ndarray:
    """One for each class: 4 x 4 coloured squares of 8 pixels, at half brightness, uint8 [100, 32, 32, 3]."""
    cells = random_bits(0, "synthetic", 0, CLASSES * 4 * 4 * 3 // 8).view(np.uint8).reshape(CLASSES, 4, 4, 3)
    return (cells >> 1).repeat(8, axis=1).repeat(8, axis=2)
