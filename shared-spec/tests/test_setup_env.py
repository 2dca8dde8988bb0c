"""Making an environment: from the right Python, of the right parts, and never counted as made when it is not."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "setup_env.py"
HERE = (sys.version_info[0], sys.version_info[1])


@pytest.fixture
def setup_env(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import setup_env

    return setup_env


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one folder to set up, whose pip writes down what it was called with instead of installing."""
    for name in ("shared-spec", "bench-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(f"# {name}")
    (tmp_path / "bench-x" / "requirements.lock").write_text("numpy==2.4.6\n")
    return tmp_path / "bench-x"


@pytest.fixture
def commands(setup_env, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been run; a venv command leaves an interpreter, and nothing else does anything."""
    run: list[list[str]] = []

    def fake(command: list[str], folder: Path, what: str) -> None:
        run.append(list(command))
        if "venv" in command:
            python = folder / ".venv" / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            (folder / ".venv" / ".made").unlink(missing_ok=True)
            python.unlink(missing_ok=True)
            python.symlink_to(sys.executable)
        if f"import {FAILS_TO_IMPORT}" in command:
            raise setup_env.CannotSetUp("bench-x/.venv is not set up")

    monkeypatch.setattr(setup_env, "run", fake)
    return run


FAILS_TO_IMPORT = "broken_framework"


def words(clone: Path, *more: str) -> list[str]:
    return [str(clone), "--extra", "cpu", "--lock", "requirements.lock", *more]


def test_a_second_time_nothing_is_made(setup_env, clone: Path, commands: list[list[str]]) -> None:
    assert setup_env.main(words(clone)) == 0
    assert commands[0][1:] == ["-m", "venv", "--clear", ".venv"]
    assert commands[2][-2:] == ["-e", ".[cpu]"]
    assert json.loads((clone / ".venv" / ".made").read_text())["python"] == setup_env.words(HERE)
    commands.clear()
    assert setup_env.main(words(clone)) == 0
    assert commands == []


@pytest.mark.parametrize("change", ["extra", "lock", "index", "pyproject", "interpreter"])
def test_what_it_is_made_of_has_changed(setup_env, clone: Path, commands: list[list[str]], change: str) -> None:
    setup_env.main(words(clone))
    commands.clear()
    more = []
    if change == "extra":
        more = ["--extra", "cuda"]
    elif change == "index":
        more = ["--pip=--no-cache-dir"]
    elif change == "lock":
        (clone / "requirements.lock").write_text("numpy==2.5.0\n")
    elif change == "pyproject":
        (clone.parent / "shared-spec" / "pyproject.toml").write_text("# other")
    else:
        (clone / ".venv" / "bin" / "python").unlink()
    assert setup_env.main(words(clone, *more)) == 0
    assert commands[0][1:3] == ["-m", "venv"]


def test_what_cannot_be_imported_is_not_made(
    setup_env, clone: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup_env.main(words(clone, "--imports", FAILS_TO_IMPORT)) == 1
    assert "not set up" in capsys.readouterr().err
    assert not (clone / ".venv" / ".made").exists()
    commands.clear()
    assert setup_env.main(words(clone, "--imports", "json")) == 0
    assert commands, "a failed set-up was taken for a finished one"


def fake_python(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 14)])
def test_another_python_is_named_where_this_one_will_not_do(
    setup_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    monkeypatch.setattr(setup_env, "PLACES", [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(setup_env.CannotSetUp, match=r"needs Python 3\.11 to 3\.13, and this is 3\.\d+; install one"):
        setup_env.check_version(version)
    fake_python(tmp_path / "python3.13", "3 14")  # not what its name says
    other = fake_python(tmp_path / "python3.12", "3 12")
    with pytest.raises(setup_env.CannotSetUp, match=f"make PYTHON={other}"):
        setup_env.check_version(version)
    setup_env.check_version((3, 12))


def test_an_environment_of_another_python_stays_unless_a_python_is_chosen(
    setup_env, clone: Path, commands: list[list[str]]
) -> None:
    setup_env.main(words(clone))
    commands.clear()
    other = (3, 12) if HERE != (3, 12) else (3, 13)
    stamp = clone / ".venv" / ".made"
    stamp.write_text(stamp.read_text().replace(setup_env.words(HERE), setup_env.words(other)))
    (clone / ".venv" / "bin" / "python").unlink()
    fake_python(clone / ".venv" / "bin" / "python", f"{other[0]} {other[1]}")
    assert setup_env.main(words(clone)) == 0
    assert commands == []
    assert setup_env.main(words(clone, "--chosen")) == 0
    assert commands[0][1:3] == ["-m", "venv"]


def test_nothing_from_outside_reaches_the_environment(setup_env, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://index.example")
    environ = setup_env.clean_environ()
    assert "/elsewhere" not in environ.values()
    assert environ["PIP_USER"] == "no"
    assert environ["PIP_EXTRA_INDEX_URL"] == "https://index.example"


def test_a_failing_command_ends_it_with_a_sentence(clone: Path) -> None:
    (clone / "requirements.lock").write_text("not a requirement at all\n")
    env = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONPATH": "/elsewhere"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words(clone)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 1
    assert "bench-x/.venv is not set up: pip could not install the pinned packages, see above" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv" / ".made").exists()
