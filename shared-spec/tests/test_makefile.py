"""The Makefile hands on what it is given, whatever characters are in it."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")


def words(target: str, **variables: str) -> list[str]:
    """What `make` would run for a target, as the shell takes it apart."""
    given = [f"{name}={value}" for name, value in variables.items()]
    done = subprocess.run(["make", "-n", target, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    return [word for line in done.stdout.replace("\\\n", " ").splitlines() for word in shlex.split(line)]


@pytest.mark.parametrize("platform", ["mlx", "cuda", "ipex"])
def test_a_folder_with_a_space_is_one_word(platform: str) -> None:
    found = words(f"bench-{platform}", RESULTS="my results", DATA="my data", SPEC="my spec.json")
    for option, value in (("--out", "my results"), ("--data", "my data"), ("--spec", "my spec.json")):
        assert found[found.index(option) + 1] == value


def test_a_report_of_a_folder_with_a_space() -> None:
    found = words("report", RESULTS="my results")
    assert found[-1] == "my results"
