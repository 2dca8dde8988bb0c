"""CIFAR-100 (Krizhevsky 2009, python version): find, fetch, verify and read it.

The three official files are pickles. They are read only after their MD5 has been checked, from the very bytes
that were checked, and by an unpickler that knows three names and can call nothing else.
"""

import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from shared_spec import files, places
from shared_spec.data import synthetic
from shared_spec.data.dataset import CLASSES, Dataset, Identity
from shared_spec.data.synthetic import SYNTHETIC
from shared_spec.errors import UserError
from shared_spec.workload.spec import Spec

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"

_REMEDY = f"get it anew from {URL}."
_FOLDER = "cifar-100-python"
_ARCHIVE = "cifar-100-python.tar.gz"
_ARCHIVES = (_ARCHIVE, "cifar-100-python.tar", "cifar-100-python.tgz")
"""Names of the archive: its own, and what browsers make of it; Safari unpacks what gzip has packed."""
_LAYOUTS = ("", _FOLDER, f"cifar-100-python-target/{_FOLDER}")
"""Where the files lie below a folder: in it; as the archive and torchvision have it; as Keras 3 has it."""
_TIMEOUT = (5.0, 20.0)
"""Seconds to wait for a connection, and for the next bytes of a download."""


@dataclass(frozen=True)
class OfficialFile:
    """What one of the official files must be: its length in bytes, its MD5, and how many images it holds."""

    size: int
    md5: str
    images: int


FILES = {
    "train": OfficialFile(155_249_918, "16019d7e3df5f24257cddd939b257f8d", 50_000),
    "test": OfficialFile(31_049_707, "f0ef6b0ae62326f3e7ffdfab6717acfc", 10_000),
    "meta": OfficialFile(1_473, "7973b15100ade9c7d40fb424638fde48", 0),
}


class Unavailable(UserError):
    """CIFAR-100 is not on this machine, nobody said where it is, and it could not be downloaded."""


def locate(data: str | None, progress: bool) -> Path | None:
    """Find the folder with the official files, fetching or extracting them where need be.

    The first of these that is given or there decides: `data`, $CIFAR100_DIR, the user's cache, a download.

    Args:
        data: a folder or archive, as on the command line; "synthetic" asks for the stand-in; None or "" says nothing.
        progress: show a download's progress on stderr.

    Returns:
        The folder, for `load`; None where the stand-in was asked for.

    Raises:
        UserError: there is no usable CIFAR-100 where the user said that it is.
        Unavailable: the user did not say where it is, and it cannot be downloaded.
    """
    for option, named in (("--data", data), ("$CIFAR100_DIR", os.environ.get("CIFAR100_DIR"))):
        if named == SYNTHETIC:
            return None
        if named:
            return _resolve(Path(os.path.expanduser(named)).absolute(), option)
    try:
        cached = cache_folder() / _FOLDER
    except UserError as error:
        raise Unavailable(f"CIFAR-100 cannot be kept on this machine: {error}") from error
    return cached if _is_intact(cached) else _download(progress)


def at_hand(data: str | None) -> Path | str | None:
    """What `locate` would take, without fetching or unpacking anything; SYNTHETIC for the stand-in.

    Returns:
        None where it would be downloaded.

    Raises:
        UserError: there is nothing where the user said that it is.
    """
    for option, named in (("--data", data), ("$CIFAR100_DIR", os.environ.get("CIFAR100_DIR"))):
        if named == SYNTHETIC:
            return SYNTHETIC
        if named:
            path = Path(os.path.expanduser(named)).absolute()
            packed = path.is_file() or (path / _ARCHIVE).is_file()
            return path if packed else _resolve(path, option)
    try:
        cached = cache_folder() / _FOLDER
    except UserError as error:
        raise Unavailable(f"CIFAR-100 cannot be kept on this machine: {error}") from error
    return cached if _is_intact(cached) else None


def load(folder: Path | None, spec: Spec) -> Dataset:
    """The dataset of `locate`'s answer: CIFAR-100 from `folder`, the stand-in for None."""
    return synthetic.dataset(spec) if folder is None else read(folder)


def identity(folder: Path | None, spec: Spec) -> Identity:
    """Which data `load` would return, without holding its 180 MB.

    Raises:
        UserError: a file is missing, unreadable, or not the official one.
    """
    if folder is None:
        return synthetic.identity(spec)
    for name in FILES:
        _verify_file(folder, name)
    return Identity("cifar-100", _checksums())


def _checksums() -> dict[str, str]:
    return {name: file.md5 for name, file in FILES.items()}


def cache_folder() -> Path:
    """Where a download is kept, and what an archive holds: the user's cache, as $XDG_CACHE_HOME or the system has it."""
    return places.cache(places.CACHE)


def _resolve(path: Path, option: str) -> Path:
    """The folder with the files that `path`, named by the user through `option`, stands for."""
    expected = f"the folder with CIFAR-100's files {', '.join(FILES)}, or {_ARCHIVE}"
    try:
        folder = max((path / layout for layout in _LAYOUTS), key=_files_in)
        if _files_in(folder) == len(FILES):
            return folder
        archives = [path / name for name in _ARCHIVES] if path.is_dir() else [path]
        for archive in archives:
            if archive.is_file():
                return extract(archive, cache_folder() / _FOLDER)
        problem = "holds no CIFAR-100" if path.exists() else "does not exist"
        missing = [name for name in FILES if not (folder / name).is_file()]
        if 0 < len(missing) < len(FILES):
            problem = f"has no file {' and no file '.join(missing)}"
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be read ({error.strerror}); give {expected}.") from error
    raise UserError(f"{option}: {path} {problem}; give {expected}.")


def _files_in(folder: Path) -> int:
    return sum((folder / name).is_file() for name in FILES)


def _download(progress: bool) -> Path:
    import pooch  # noqa: PLC0415  (only who downloads needs it, and it takes 20 ms)

    pooch.get_logger().setLevel("INFO" if progress else "WARNING")
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 16, timeout=_TIMEOUT)
    try:
        archive = pooch.retrieve(URL, f"md5:{ARCHIVE_MD5}", fname=_ARCHIVE, path=cache_folder(), downloader=downloader)
        return extract(Path(archive), cache_folder() / _FOLDER)
    except UserError as error:
        raise Unavailable(str(error)) from error
    except OSError as error:  # what requests says of a failed connection fills three lines; its class says enough
        reason = error.strerror or type(error).__name__
        cause: Exception = error
    except ValueError as error:
        reason, cause = "what came is not the official archive", error
    raise Unavailable(
        f"CIFAR-100 is not on this machine and cannot be downloaded from {URL} ({reason}); check the network, "
        f"or give --data or $CIFAR100_DIR the folder with its files {', '.join(FILES)}, or the archive."
    ) from cause


def extract(archive: Path, folder: Path) -> Path:
    """Put the three official files of a .tar.gz into `folder`, each verified and written atomically.

    Where they go depends on nothing that the archive says; links and all other members are passed over. Files
    that are in `folder` already, and intact, are left as they are.

    Returns:
        `folder`.

    Raises:
        UserError: the archive cannot be read, is damaged, or lacks a file or has a different one; or `folder`
            cannot be written.
    """
    missing = set(FILES)
    for name, content in _archived_files(archive):
        missing.discard(name)
        if not _is_intact(folder, name):
            try:
                files.write_atomic(folder / name, content)
            except OSError as error:
                raise UserError(
                    f"{folder / name}: cannot be written ({error.strerror}); extract {archive.name} elsewhere "
                    "and give --data that folder."
                ) from error
        if not missing:
            return folder
    raise UserError(f"{archive}: has no regular file {_FOLDER}/{min(missing)}; {_REMEDY}")


class _FiniteFile(io.FileIO):
    """A file whose end is an error: tarfile would read past it for as long as a damaged header says."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if not content:
            raise EOFError("it ends too early")
        return content


def _mode(archive: Path) -> Literal["r|gz", "r|"]:
    """How to read an archive: packed by gzip, or what a browser has left of it."""
    with archive.open("rb") as file:
        return "r|" if file.read(512)[257:262] == b"ustar" else "r|gz"


def _archived_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and verified content of the official files in `archive`, in its order."""
    wanted = {PurePosixPath(parent, name): name for parent in ("", _FOLDER) for name in FILES}
    try:
        # As a stream: a negative length in a header cannot send tarfile round in circles (CVE-2025-8194).
        with _FiniteFile(archive) as file, tarfile.open(fileobj=file, mode=_mode(archive), bufsize=1 << 20) as tar:
            for member in tar:
                name = wanted.get(PurePosixPath(member.name))
                reader = tar.extractfile(member) if name and member.isreg() else None
                if name and reader:
                    content = reader.read(FILES[name].size + 1)
                    _verify(content, name, f"{archive}: {member.name}")
                    yield name, content
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{archive}: is not an intact .tar.gz archive ({error}); {_REMEDY}") from error


def _verify(content: bytes, name: str, source: str) -> None:
    """Raise UserError, naming `source`, unless `content` is the official file `name`."""
    _check(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest(), name, source)


def _verify_file(folder: Path, name: str) -> None:
    """Raise UserError unless `folder` has the official file `name`; it is read in pieces."""
    path = folder / name
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            is_too_long = size > FILES[name].size
            md5 = "" if is_too_long else hashlib.file_digest(file, _md5).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    _check(size, md5, name, str(path))


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _check(size: int, md5: str, name: str, source: str) -> None:
    """Raise UserError, naming `source`, unless the official file `name` has this size in bytes and this MD5."""
    official = FILES[name]
    if size < official.size:
        raise UserError(
            f"{source}: has {size:,} bytes instead of {official.size:,}, so it is truncated or not "
            f"CIFAR-100's; {_REMEDY}"
        )
    if md5 != official.md5:
        raise UserError(f"{source}: its MD5 is not that of CIFAR-100's {name} file; {_REMEDY}")


def _read_verified(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        with path.open("rb") as file:
            content = file.read(FILES[name].size + 1)  # one more byte tells a longer file, whatever its length
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    _verify(content, name, str(path))
    return content


def _is_intact(folder: Path, *names: str) -> bool:
    try:
        for name in names or FILES:
            _verify_file(folder, name)
    except UserError:
        return False
    return True


class _PickledDtype:
    """Stands in for numpy.dtype: keeps its name."""

    def __init__(self, name: str | bytes, align: bool, copy: bool) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: nothing that a one-byte type needs."""


class _PickledArray:
    """Stands in for numpy.ndarray, whose own unpickling is more than this and differs between NumPy's versions."""

    def __init__(self, kind: None, shape: tuple[int, ...], typecode: bytes) -> None:
        """What numpy.core.multiarray._reconstruct would take; all of it comes again in the state."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _PickledDtype, bool, bytes]) -> None:
        _, shape, dtype, is_fortran, data = state
        if dtype.name not in ("u1", b"u1") or is_fortran:
            raise pickle.UnpicklingError("its array is not of bytes in C order")
        self.values = np.frombuffer(data, np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers, strings and arrays of bytes; no other name is looked up."""

    _KNOWN = {  # noqa: RUF012 - a constant
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _PickledDtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._KNOWN[module, name]


def _interpret(content: bytes, name: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and fine labels int64 [N] of a verified file."""
    n = FILES[name].images
    try:
        fields = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        planes = fields[b"data"].values.reshape(n, 3, 32, 32)
        labels = np.array(fields[b"fine_labels"], np.int64).reshape(n)
        if labels.min() < 0 or labels.max() >= CLASSES:
            raise ValueError("a label is not in 0 to 99")
    except Exception as error:  # a pickle can raise anything
        raise UserError(f"{source}: is not CIFAR-100's {name} file ({error}); {_REMEDY}") from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def read(folder: Path) -> Dataset:
    """Read CIFAR-100 from its three files, all verified before the first is interpreted.

    Raises:
        UserError: a file is missing, unreadable, or not the official one.
    """
    contents = {name: _read_verified(folder, name) for name in FILES}
    train_images, train_labels = _interpret(contents.pop("train"), "train", str(folder / "train"))
    test_images, test_labels = _interpret(contents.pop("test"), "test", str(folder / "test"))
    return Dataset(train_images, train_labels, test_images, test_labels, "cifar-100", _checksums())
