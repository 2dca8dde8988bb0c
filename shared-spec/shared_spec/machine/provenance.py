"""Which software measured: the commit of the checkout and the versions of everything installed.

A commit is only told of where it is this project's own: that of a repository whose top is the tree that this file lies
in, and that has this file among its own; or the one that `git archive` has written into exported_commit.txt, which is
also how GitHub makes its .zip and .tar.gz.
"""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from shared_spec import __version__
from shared_spec.machine.probe import command_output, first_line

TREE = Path(__file__).parents[3]
"""What a clone of this project has at its top, where this is one."""
THIS_FILE = Path(__file__).relative_to(TREE)
EXPORTED = "shared-spec/shared_spec/machine/exported_commit.txt"


def git_state(tree: Path = TREE) -> tuple[str | None, bool | None]:
    """Commit of the checkout at `tree`, and whether it is clean; None for what is not known for certain."""
    exported = first_line(tree / EXPORTED) or ""
    if re.fullmatch(r"[0-9a-f]{40}", exported):  # who has changed it since, if anybody, nothing tells
        return exported, None
    top = _git(tree, "rev-parse", "--show-toplevel")
    if not top or not _is_same(Path(top), tree):
        return None, None
    commit = _git(tree, "rev-parse", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return None, None
    if not _git(tree, "ls-files", "--", str(THIS_FILE)):
        return None, None
    status = _git(tree, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else status == ""


def _git(tree: Path, *words: str) -> str | None:
    """Output of git in `tree`, whatever repository the environment names; None where it fails or hangs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return command_output("git", "-c", "core.fsmonitor=false", "-C", str(tree), *words, env=env)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def software() -> dict[str, Any]:
    """Versions of everything installed, and the commit (results.schema.json: software)."""
    commit, clean = git_state()
    return {
        "shared_spec": __version__,
        "git_commit": commit,
        "git_clean": clean,
        "python": platform.python_version(),
        "packages": dict(sorted(_packages().items())[:1000]),
    }


def _packages() -> dict[str, str]:
    """Version by name of all that is installed; what is installed only in part has no name or version and is left out."""
    packages = {}
    for distribution in importlib.metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
        except Exception:  # a folder that an interrupted pip has left; each kind of damage raises another error
            continue
        if name and version:
            packages[name.lower()] = version[:200]
    return packages
