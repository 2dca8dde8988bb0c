"""What a dataset is, whether it is CIFAR-100 or the stand-in for it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Source = Literal["cifar-100", "synthetic"]
CLASSES = 100


@dataclass(frozen=True)
class Dataset:
    """Images and fine labels, in the official order.

    Attributes:
        train_images, test_images: uint8 [N, 32, 32, 3], RGB.
        train_labels, test_labels: int64 [N], 0 to 99.
        checksums: MD5 by file name for CIFAR-100; "synthetic_sha256", over all four arrays, for the stand-in.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: Source
    checksums: dict[str, str]


@dataclass(frozen=True)
class Identity:
    """Which data it is.

    Attributes:
        checksums: as in `Dataset`.
    """

    source: Source
    checksums: dict[str, str]
