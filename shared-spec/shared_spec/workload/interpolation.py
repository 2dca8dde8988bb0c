"""Upscaling as a matrix, the same arithmetic in every framework."""

import numpy as np


def interpolation_matrix(source: int, target: int) -> np.ndarray:
    """Bilinear upscaling with half-pixel centres as a matrix W, float32 [target, source].

    Row i interpolates at (i + 0.5) * source / target - 0.5, clamped to the image, as in
    torch.nn.functional.interpolate(mode="bilinear", align_corners=False); a plane x becomes W x W^T.
    """
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = np.minimum(position.astype(np.int64), max(source - 2, 0))
    weight = position - left
    matrix = np.zeros((target, source))
    matrix[np.arange(target), left] = 1 - weight
    if source > 1:
        matrix[np.arange(target), left + 1] += weight
    return matrix.astype(np.float32)
