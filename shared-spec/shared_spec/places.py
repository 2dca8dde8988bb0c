"""Where files may lie on somebody else's machine: folders for results, caches and what is made for the moment.

A home folder need not exist, a folder in /tmp need not be one's own, and one that exists need not take a file.
"""

import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path

from shared_spec.errors import UserError

CACHE = "deit-bench"
"""Name of the folder for what this project keeps."""
NO_EXEC = getattr(os, "ST_NOEXEC", 8)
TRIAL = b"\0" * (1 << 20)
"""What is written to find out whether a folder takes files: disks that are full, quotas and `ulimit -f` tell so alone."""


def check_results(folder: Path, needed: int) -> None:
    """Make the folder for results, and prove that it takes `needed` bytes.

    Raises:
        UserError: it cannot be made or written to, or there is not room enough.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"--out {folder}: is a link to {os.readlink(folder)}, which does not exist; make that, or choose another --out."
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_to_write(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written to ({error.strerror}); {way_out(folder)}") from error
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise UserError(
                f"--out {folder}: only {free / 2**20:,.0f} MiB are free there and the run needs {needed / 2**20:,.0f}; "
                "make room, or choose another --out."
            )


def try_to_write(folder: Path) -> None:
    """Write a file into `folder` and remove it.

    Raises:
        OSError: that is not possible.
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".trial.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(TRIAL)
    finally:
        os.unlink(name)


def way_out(folder: Path) -> str:
    """What helps who may not write to `folder`."""
    with contextlib.suppress(OSError):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if nearest.stat().st_uid != os.getuid() and nearest.stat().st_uid == 0 and folder.exists():
            return (
                f"it belongs to root, as after a run with sudo: `sudo chown -R $(id -u) {folder}`, "
                "or choose another --out."
            )
    return "choose another --out."


def home() -> Path | None:
    """The user's home folder; None where the system knows none."""
    path = Path(os.path.expanduser("~"))
    return path if path.is_absolute() and path.is_dir() else None


def name_the_user() -> None:
    """Give a user whom the system does not know a name for the processes that will be started.

    PyTorch asks for it when it is imported, to name a cache, and ends where there is none.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def cache(name: str) -> Path:
    """Folder of this user's files of that name that may be made anew at any time; it exists and takes files.

    It is where the system has such folders; without a home that takes files it is the user's own in the temporary one.

    Raises:
        UserError: there is none.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    own_home = home()
    usual = [Path(base)] if os.path.isabs(base) else []
    if own_home is not None:
        usual += [own_home / ("Library/Caches" if os.uname().sysname == "Darwin" else ".cache")]
    for folder in usual:
        with contextlib.suppress(OSError):
            (folder / name).mkdir(parents=True, exist_ok=True)
            if os.access(folder / name, os.W_OK | os.X_OK):
                return folder / name
    return temporary(name)


def is_usual(folder: Path) -> bool:
    """Whether a folder that `cache` has named is where a user would look for it."""
    return not folder.is_relative_to(tempfile.gettempdir())


def temporary(name: str, run_from: bool = False, needed: int = len(TRIAL)) -> Path:
    """A folder for temporary files that is this user's alone, safe in a /tmp that all share.

    Args:
        run_from: programs will be loaded from it.
        needed: bytes that must be free.

    Raises:
        UserError: no folder for temporary files can serve; the text says what is wrong with the first.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp")]
    if (own_home := home()) is not None:
        candidates.append(own_home / ".cache")
    problems = []
    for base in dict.fromkeys(candidates):
        try:
            folder = _own(base / f"deit-bench-{os.getuid()}") / name
            folder.mkdir(exist_ok=True, parents=True)
            _check_room(folder, run_from, needed)
            return folder
        except OSError as error:
            problems.append(f"{base} {error.strerror or error}")
    raise UserError(
        f"No folder can hold temporary files: {'; '.join(problems)}. Set TMPDIR to a folder of your own with "
        f"{needed >> 20} MiB free{' that programs may be run from' if run_from else ''}."
    )


def _own(folder: Path) -> Path:
    """Make a folder that nobody else can look or write into.

    Raises:
        OSError: it is there and somebody else's, or a link.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError(0, f"has a {folder.name} that another user can write to")
    return folder


def _check_room(folder: Path, run_from: bool, needed: int) -> None:
    try_to_write(folder)
    system = os.statvfs(folder)
    if system.f_bavail * system.f_frsize < needed:
        raise OSError(0, f"has less than {needed >> 20} MiB free")
    if run_from and system.f_flag & NO_EXEC:
        raise OSError(0, "is mounted noexec, so that compiled kernels cannot be loaded from it")
