"""Strict JSON in, atomic JSON out."""

import gzip
import io
import json
import math
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared_spec.errors import UserError

PIECE = 2**20
MAX_BYTES = 2**30
"""More than any file that this package reads may have; who reads what strangers wrote sets a narrower bound."""


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
    """Read a JSON file, or a .json.gz.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or not JSON.
    """
    try:
        return loads(read_bytes(path).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text, so it is not a JSON file.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); it may be truncated.") from error
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error


def read_bytes(path: Path, largest: int = MAX_BYTES) -> bytes:
    """The content of a regular file, unpacked where its name ends in .gz.

    Args:
        largest: bytes that it may have, packed and unpacked.

    Raises:
        UserError: it is no regular file, too large, or not what gzip has packed; the text does not name the file.
        OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # opening a folder says what is wrong
        raise UserError("is not a regular file")
    with path.open("rb") as file:
        data = _at_most(largest, file.read)
        if path.suffix != ".gz":
            return data
    try:
        return _at_most(largest, gzip.GzipFile(fileobj=io.BytesIO(data)).read)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"is not what gzip has packed ({error})") from error


PIECE = 1 << 20
"""Bytes asked for at a time: Python reserves as many as are asked for, whatever there is."""


def _at_most(largest: int, read: Callable[[int], bytes]) -> bytes:
    """What there is to read; hardly more than the bound is ever held."""
    data = bytearray()
    while len(data) <= largest and (piece := read(PIECE)):
        data += piece
    if len(data) > largest:
        raise UserError(f"is larger than the {largest / 2**20:g} MiB that a file may have here")
    return bytes(data)


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
    """Write `value` as JSON, atomically, and packed where the name ends in .gz.

    Raises:
        ValueError: there is a NaN or an infinity in it.
    """
    data = dumps(value).encode()
    write_atomic(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def dumps(value: Any) -> str:
    """`value` as JSON for people: a line for each thing, and one for an array of numbers however long it is.

    Raises:
        ValueError: there is a NaN or an infinity in it.
    """
    return "".join(_pieces(value, "\n")) + "\n"


def _pieces(value: Any, newline: str) -> Iterator[str]:
    inner = newline + " "
    if isinstance(value, dict) and value:
        for i, (key, item) in enumerate(value.items()):
            yield f"{',' if i else '{'}{inner}{json.dumps(key)}: "
            yield from _pieces(item, inner)
        yield newline + "}"
    elif isinstance(value, list | tuple) and not _numeric(value):
        for i, item in enumerate(value):
            yield f"{',' if i else '['}{inner}"
            yield from _pieces(item, inner)
        yield newline + "]"
    else:
        yield json.dumps(value, allow_nan=False)


def _numeric(value: Any) -> bool:
    """Whether it is a number, true, false or null, or an array of nothing but such."""
    if isinstance(value, list | tuple):
        return all(map(_numeric, value))
    return value is None or isinstance(value, int | float)
