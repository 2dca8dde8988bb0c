"""The array module that the reference computes with: NumPy, or CuPy on a machine with CUDA.

The reference calls NumPy's functions whatever its arrays are: those of CuPy answer them themselves (NEP 13 and NEP 18).
What is left is how arrays get there and back, and the one function that NumPy does not have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from shared_spec.errors import UserError


def erf(x: np.ndarray) -> np.ndarray:
    """Error function, correct to the last bits of float64: NumPy has none, so the C library's is called for each."""
    values = np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size)
    return values.reshape(x.shape).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Arrays:
    """An array module.

    Attributes:
        put: an array of the host, where this module computes.
        get: its array, on the host.
        erf: error function of its arrays, element by element.
    """

    put: Callable[[np.ndarray], np.ndarray]
    get: Callable[[np.ndarray], np.ndarray]
    erf: Callable[[np.ndarray], np.ndarray]


NUMPY = Arrays(np.asarray, np.asarray, erf)
ArrayModule = Literal["numpy", "cupy"]


def arrays(name: ArrayModule) -> Arrays:
    """The array module of this name.

    Raises:
        UserError: it is not installed, or finds no device.
    """
    return NUMPY if name == "numpy" else _cupy()


def _cupy() -> Arrays:
    try:
        cupy, special = import_module("cupy"), import_module("cupyx.scipy.special")
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # without a driver CuPy raises errors of its own
        raise UserError(f"--arrays cupy: CuPy cannot be used here ({error}); leave the option out.") from error
    if not devices:
        raise UserError("--arrays cupy: CuPy finds no CUDA device here; leave the option out.")

    def get(x: Any) -> np.ndarray:
        values: np.ndarray = cupy.asnumpy(x)
        return values

    return Arrays(cupy.asarray, get, special.erf)
