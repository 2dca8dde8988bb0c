"""Arrays of another module than NumPy, as strict as CuPy's: nothing of the host's memory gets in or out unasked."""

from typing import Any

import numpy as np

from shared_spec.workload import arrays
from shared_spec.workload.arrays import Arrays


class ForeignArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on an imaginary device; NumPy's functions work on it, together with numbers and its like alone."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("no conversion to an array of the host")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, np.ndarray) for x in (*inputs, *kwargs.get("out", ()))):
            return NotImplemented
        if "out" in kwargs:
            kwargs["out"] = tuple(x.values for x in kwargs["out"])
        return _foreign(getattr(ufunc, method)(*map(_native, inputs), **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _foreign(function(*map(_native, args), **{k: _native(v) for k, v in kwargs.items()}))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.values, name)
        return (lambda *args, **kwargs: _foreign(value(*args, **kwargs))) if callable(value) else _foreign(value)

    def __getitem__(self, key: Any) -> Any:
        return _foreign(self.values[key])

    def __setitem__(self, key: Any, value: "ForeignArray") -> None:
        self.values[key] = _native(value)

    def __len__(self) -> int:
        return len(self.values)

    def __float__(self) -> float:
        return float(self.values)


def _native(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        raise TypeError("an array of the host among those of the device")
    if isinstance(x, tuple | list):
        return type(x)(map(_native, x))
    return x.values if isinstance(x, ForeignArray) else x


def _foreign(x: Any) -> Any:
    return ForeignArray(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x


def _get(x: Any) -> np.ndarray:
    assert isinstance(x, ForeignArray)
    return x.values


FOREIGN = Arrays(ForeignArray, _get, lambda x: ForeignArray(arrays.erf(x.values)))
