"""Which software measured."""

import importlib.metadata
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared_spec.machine import provenance
from shared_spec.machine.provenance import EXPORTED, THIS_FILE, git_state

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | IDENTITY
    done = subprocess.run(["git", "-C", str(folder), *words], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def tree(folder: Path) -> Path:
    """The files that say that this is the project."""
    for name in (THIS_FILE, Path(EXPORTED)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("$Format:%H$\n")
    (folder / ".gitattributes").write_text(f"{EXPORTED} export-subst\n")
    return folder


def repository(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    (folder / "other").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return repository(tree(tmp_path / "own"))


def test_the_commit_of_the_projects_own_repository(own: Path) -> None:
    commit = git(own, "rev-parse", "HEAD")
    assert git_state(own) == (commit, True)
    (own / THIS_FILE).write_text("changed")
    assert git_state(own) == (commit, False)


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert git_state(tree(tmp_path)) == (None, None)


def test_a_repository_around_the_tree_is_not_its_own(tmp_path: Path) -> None:
    around = repository(tmp_path / "around")
    inside = tree(around / "deit-bench-main")
    assert git_state(inside) == (None, None)
    git(around, "add", ".")
    git(around, "commit", "-qm", "vendored")
    assert git_state(inside) == (None, None)


def test_a_repository_that_does_not_have_the_project_in_it_is_not_its_own(tmp_path: Path) -> None:
    folder = repository(tmp_path / "home")
    tree(folder)
    assert git_state(folder) == (None, None)


@pytest.mark.parametrize("names", [("GIT_DIR",), ("GIT_DIR", "GIT_WORK_TREE"), ("GIT_INDEX_FILE",)])
def test_variables_of_git_lead_to_no_other_repository(
    names: tuple[str, ...], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other")
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": own, "GIT_INDEX_FILE": other / ".git/index"}
    for name in names:
        monkeypatch.setenv(name, str(values[name]))
    assert git_state(own) == (git(own, "rev-parse", "HEAD"), True)
    assert git_state(tree(tmp_path / "zip")) == (None, None)


@pytest.mark.parametrize("body", ["exit 128", "exec sleep 60"])
def test_a_status_that_fails_or_takes_too_long_is_unknown(
    body: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(own, "rev-parse", "HEAD")
    real, run = (
        subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip(),
        subprocess.run,
    )
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *\' status \'*) {body};; esac\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: run(*args, **{**more, "timeout": 1}))
    assert git_state(own) == (commit, None)


def test_an_export_carries_its_commit(own: Path, tmp_path: Path) -> None:
    commit = git(own, "rev-parse", "HEAD")
    git(own, "archive", "--prefix=x/", "-o", str(tmp_path / "x.tar"), "HEAD")
    subprocess.run(["tar", "-xf", str(tmp_path / "x.tar"), "-C", str(tmp_path)], check=True)
    assert git_state(tmp_path / "x") == (commit, None)
    repository(tmp_path / "x")  # somebody's own repository of it
    assert git_state(tmp_path / "x") == (commit, None)


def test_the_export_of_this_project_is_marked_for_it() -> None:
    assert (provenance.TREE / EXPORTED).read_text().startswith(("$Format:%H$", *"0123456789abcdef"))
    assert f"{EXPORTED} export-subst" in (provenance.TREE / ".gitattributes").read_text()


def test_what_is_installed_in_part_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @property
        def metadata(self) -> dict[str, str]:
            raise FileNotFoundError("METADATA")

    whole = SimpleNamespace(metadata={"Name": "Torch"}, version="2.8")
    nameless = SimpleNamespace(metadata={"Name": None}, version="1")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Broken(), whole, nameless])
    assert provenance.software()["packages"] == {"torch": "2.8"}
