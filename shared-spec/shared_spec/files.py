"""Strict JSON in, atomic JSON out."""

import codecs
import errno
import gzip
import io
import json
import math
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        return loads(decoded(read_bytes(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text, so it is not a JSON file.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); it may be truncated.") from error
    except UserError as error:
        raise UserError(f"{path}: {error}.") from error


def decoded(data: bytes) -> str:
    """Text in UTF-8, or in what a byte order mark at its beginning says: some editors and shells write one.

    Raises:
        UnicodeDecodeError: it is not text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


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
    return _unpacked(data, largest) if path.suffix == ".gz" else data


GZIP = b"\x1f\x8b"
"""How what gzip has packed begins."""


def read_stream(read: Callable[[int], bytes], largest: int = MAX_BYTES) -> bytes:
    """The content of a stream, unpacked where it is packed: it has no name to say so.

    Raises:
        UserError: it is too large, or not what gzip has packed.
    """
    data = _at_most(largest, read)
    return _unpacked(data, largest) if data.startswith(GZIP) else data


def _unpacked(data: bytes, largest: int) -> bytes:
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
    """Write `data` so that `path` either holds all of it or is untouched, whatever is killed when.

    A link is followed. What is no file (a device, a pipe, the standard output) cannot be replaced and is written to.
    """
    if is_stream(path):
        with path.open("wb") as stream:
            stream.write(data)
        return
    with written(path.resolve()) as temporary:
        Path(temporary).write_bytes(data)


def is_stream(path: Path) -> bool:
    """Whether `path` can be written to but not replaced: a device, a pipe, or another name of something that is open."""
    if str(path.absolute()).startswith(STREAMS):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


STREAMS = ("/dev/", "/proc/")
NEEDS_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What file systems answer to fsync that have none."""


@contextmanager
def written(path: Path) -> Iterator[str]:
    """A name for a new file, which takes the place of `path` when the block ends well and is removed when it does not."""
    with _beside(path) as temporary:
        yield temporary
        _make_last(temporary)
        os.replace(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    os.close(descriptor)
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _make_last(temporary: str) -> None:
    """Have the system put the file on its disk, readable as files usually are, as far as this file system can."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NEEDS_NO_SYNC:
            raise
    finally:
        os.close(descriptor)
    umask = os.umask(0)
    os.umask(umask)
    with suppress(OSError):  # exFAT and SMB have no such thing
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; a result is meant to be shared


def write_new(path: Path, value: Any) -> bool:
    """Write `value` as JSON, as `write` does, but only where nothing is; two that try at once do not both succeed.

    Returns:
        Whether there was nothing.
    """
    with _beside(path) as temporary:
        Path(temporary).write_bytes(_packed(path, value))
        _make_last(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: the name is taken first, and filled then
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                return False
            os.replace(temporary, path)
            return True
        finally:
            with suppress(OSError):
                os.unlink(temporary)
    return True


def _packed(path: Path, value: Any) -> bytes:
    data = dumps(value).encode()
    return gzip.compress(data, mtime=0) if path.suffix == ".gz" else data


def write(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically, and packed where the name ends in .gz.

    Raises:
        ValueError: there is a NaN or an infinity in it.
    """
    write_atomic(path, _packed(path, value))


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
