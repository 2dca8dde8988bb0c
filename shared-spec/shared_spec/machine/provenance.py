"""Which software measured: the commit of the checkout and the versions of everything installed."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from shared_spec import __version__
from shared_spec.machine.probe import command_output


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that `folder` lies in and whether it is clean; (None, None) outside a checkout."""
    commit = command_output("git", "-C", str(folder), "rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, command_output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no") == ""


def software() -> dict[str, Any]:
    """Versions of everything installed, and the commit (results.schema.json: software)."""
    commit, clean = git_state(Path(__file__).parent)
    packages = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {
        "shared_spec": __version__,
        "git_commit": commit,
        "git_clean": clean,
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
    }
