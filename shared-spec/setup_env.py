"""Makes FOLDER/.venv, or leaves it where it is what was asked for: `python shared-spec/setup_env.py bench-mlx --extra cpu`.

Run by the Makefile with whatever Python the user has, so it must start on an old one too: nothing here needs more than 3.8.
An environment counts as made only once it imports what it is for; what it was made of is written into FOLDER/.venv/.made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

OLDEST, NEWEST = (3, 11), (3, 13)
NAMES = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
PLACES = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"]
"""Looked at after PATH: a Mac's terminal may know only the system's Python."""
FROM_OUTSIDE = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_DEPS", "PIP_PYTHON")
"""Variables that would put packages, or Python, somewhere else than into the environment."""


class CannotSetUp(Exception):
    """Why there is no environment, in one sentence with the way out."""


def version_of(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter; None where it does not run."""
    code = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True)
        major, minor = done.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def words(version: tuple[int, int] | None) -> str:
    """A version as people write it: "3.12"."""
    return ".".join(map(str, version or ()))


def suitable(version: tuple[int, int] | None) -> bool:
    """Whether deit-bench runs on this version."""
    return version is not None and OLDEST <= version <= NEWEST


def find_suitable() -> str | None:
    """The newest suitable interpreter on this machine."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    for name in NAMES:
        python = shutil.which(name, path=path)
        if python and suitable(version_of(python)):
            return python
    return None


def check_version(version: tuple[int, int]) -> None:
    """Raise CannotSetUp unless this Python is suitable; names one that is."""
    if suitable(version):
        return
    needed = f"deit-bench needs Python {words(OLDEST)} to {words(NEWEST)}, and this is {words(version)}"
    other = find_suitable()
    if other:
        raise CannotSetUp(f"{needed}; this machine has another: make PYTHON={other} ...")
    raise CannotSetUp(
        f"{needed}; install one (macOS: brew install python@3.12; Debian, Ubuntu: apt install python3.12 "
        "python3.12-venv), then: make PYTHON=python3.12 ..."
    )


def recipe(folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """What an environment is made of, the Python apart: a changed word makes it anew."""
    files = [folder / "pyproject.toml", folder.parent / "shared-spec" / "pyproject.toml"]
    files += [folder / name for name in args.lock + args.no_deps_lock]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files if file.exists())).hexdigest()
    return {"extra": args.extra, "pip": " ".join(args.pip), "files": digest}


def is_made(env: Path, wanted: dict[str, str], python: tuple[int, int] | None) -> bool:
    """Whether the environment is there, of this recipe, and its interpreter runs.

    `python`: the version that the user chose; None where nobody did, and any suitable one will do.
    """
    try:
        made = json.loads((env / ".made").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    actual = version_of(str(env / "bin" / "python"))
    return suitable(actual) and made == {**wanted, "python": words(actual)} and python in (None, actual)


def clean_environ() -> dict[str, str]:
    """This process's variables without those that would lead pip or Python astray; pip's indexes stay."""
    kept = {name: value for name, value in os.environ.items() if name not in FROM_OUTSIDE}
    return {**kept, "PIP_USER": "no", "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(command: Sequence[str], folder: Path, what: str) -> None:
    """Run a command in `folder`; raise CannotSetUp where it fails, after it has said why."""
    if subprocess.run(list(command), cwd=str(folder), env=clean_environ(), check=False).returncode:
        raise CannotSetUp(
            f"{folder.name}/.venv is not set up: {what}, see above; mend that and run the same command again."
        )


def make(folder: Path, wanted: dict[str, str], args: argparse.Namespace) -> None:
    """Make the environment from nothing.

    Raises:
        CannotSetUp: a step failed; the environment then counts as not made.
    """
    env = folder / ".venv"
    print(f"Setting up {folder.name}/.venv", flush=True)
    run([sys.executable, "-m", "venv", "--clear", ".venv"], folder, "python -m venv failed")  # takes the stamp away too
    pip = [".venv/bin/python", "-m", "pip", "install", "--quiet", *args.pip]
    run([*pip, *requirements(args.lock)], folder, "pip could not install the pinned packages")
    if folder.name != "shared-spec":
        target = f".[{args.extra}]" if args.extra else "."
        run([*pip, "-e", target], folder, "pip could not install this folder")
    no_deps = [*requirements(args.no_deps_lock), "-e", "../shared-spec"]
    run([*pip, "--no-deps", *no_deps], folder, "pip could not install shared-spec")
    for module in args.imports:
        run([".venv/bin/python", "-I", "-c", "import " + module], folder, f"{module} cannot be imported")
    stamp = {**wanted, "python": words(version_of(str(env / "bin" / "python")))}
    (env / ".made").write_text(json.dumps(stamp), encoding="utf-8")


def requirements(locks: list[str]) -> list[str]:
    """The words that hand lock files to pip."""
    return [word for lock in locks for word in ("-r", lock)]


def main(arguments: list[str] | None = None) -> int:
    """Set up what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make FOLDER/.venv.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extra", default="", help="extra of the folder's package")
    parser.add_argument("--lock", action="append", default=[], help="pinned packages")
    parser.add_argument(
        "--no-deps-lock", action="append", default=[], help="pinned packages installed without their needs"
    )
    parser.add_argument("--pip", action="append", default=[], help="one more word for pip install")
    parser.add_argument("--imports", action="append", default=[], help="module that must be importable in the end")
    parser.add_argument("--chosen", action="store_true", help="this Python and no other")
    args = parser.parse_args(arguments)
    folder, here = args.folder.resolve(), (sys.version_info[0], sys.version_info[1])
    wanted = recipe(folder, args)
    try:
        if not is_made(folder / ".venv", wanted, here if args.chosen else None):
            check_version(here)
            make(folder, wanted, args)
    except CannotSetUp as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
