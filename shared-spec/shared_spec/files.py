"""Strict JSON in, atomic JSON out."""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from shared_spec.errors import UserError


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return value


def loads(text: str) -> Any:
    """Parse JSON; NaN, Infinity (also as 1e999) and duplicate keys are errors.

    Raises:
        ValueError: `text` is not JSON, or nested deeper than the parser can follow.
    """
    try:
        return json.loads(
            text, parse_constant=_reject_constant, parse_float=_finite, object_pairs_hook=_reject_duplicates
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or not JSON.
    """
    try:
        return loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text, so it is not a JSON file.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); it may be truncated.") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` either holds all of it or is untouched, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; a result is meant to be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically; NaN and Infinity are refused with ValueError."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
