"""Augmentation of training images, by random bits that decide all about each image."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from shared_spec.workload.spec import DataSpec


def crop_and_flip(images: np.ndarray, bits: np.ndarray, data: DataSpec) -> np.ndarray:
    """Zero-pad, crop back at a random offset, flip left to right at random.

    Args:
        images: uint8 [B, S, S, 3].
        bits: uint64 [B]; one word decides all about one image: bits 0-15 the row, 16-31 the column, 32-47 the flip.

    Returns:
        uint8 [B, S, S, 3].
    """
    batch, size, pad = len(images), data.image_size, data.crop_padding
    low, offsets = np.uint64(0xFFFF), np.uint64(2 * pad + 1)
    row = ((bits & low) * offsets >> np.uint64(16)).astype(np.intp)
    column = ((bits >> np.uint64(16) & low) * offsets >> np.uint64(16)).astype(np.intp)
    flip = (bits >> np.uint64(32) & low).astype(np.float64) < data.flip_probability * 65536
    padded = np.zeros((batch, size + 2 * pad, size + 2 * pad, 3), np.uint8)
    padded[:, pad : pad + size, pad : pad + size] = images
    # [B, rows, columns, S, S*3]: every crop of every image as a view, the pixels of a row side by side.
    flat = padded.reshape(batch, size + 2 * pad, -1)
    windows = sliding_window_view(flat, (size, size * 3), axis=(1, 2))[:, :, ::3]
    cropped: np.ndarray = windows[np.arange(batch), row, column].reshape(batch, size, size, 3)
    cropped[flip] = cropped[flip, :, ::-1]
    return cropped
