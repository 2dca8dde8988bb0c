"""Counter-based random bits: raw Philox output, the same on every machine."""

from typing import Literal

import numpy as np

_PURPOSES = {"init": 1, "order": 2, "augment": 3, "synthetic": 4, "probe": 5}


def random_bits(
    seed: int, purpose: Literal["init", "order", "augment", "synthetic", "probe"], index: int, n: int
) -> np.ndarray:
    """`n` uint64 of the Philox stream that `seed`, `purpose` and `index` (an epoch, a parameter) name."""
    generator = np.random.Philox(key=[seed, _PURPOSES[purpose]], counter=[0, 0, 0, index])
    bits: np.ndarray = generator.random_raw(n)
    return bits
