"""docs/method.md's table of planted faults and the tests say the same."""

import re
from pathlib import Path

import test_checks
import test_timed_inference
import test_timed_training

ROOT = Path(__file__).parents[3]
PLATFORMS = {"mlx": "bench-mlx", "cuda": "bench-tf-cuda", "ipex": "bench-torch-ipex"}


def planted() -> dict[str, set[str]]:
    """Faults by the word that the table has for their tests."""
    faults = {
        "checks": {*test_checks.MEANT_FOR, *test_checks.MEANT_FOR_IN_BF16},
        "training": {*test_timed_training.TRAINING_FAULTS},
        "inference": {*test_timed_inference.INFERENCE_FAULTS},
    }
    for word, folder in PLATFORMS.items():
        source = (ROOT / folder / "tests" / "test_planted_faults.py").read_text(encoding="utf-8")
        faults[word] = set(re.findall(r'^    "([^"]+)": Fault\(', source, re.MULTILINE))
    return faults


def table() -> list[list[str]]:
    """Cells of the table's rows: fault, checks, tests."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").split("| planted fault |")[1]
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:] if line.startswith("|")]


def test_each_row_names_tests_that_exist_and_no_planted_fault_is_missing() -> None:
    found, names = planted(), set[str]()
    for path in (ROOT / "shared-spec" / "tests" / "conformance").glob("test_*.py"):
        names |= set(re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
    told: dict[str, set[str]] = {word: set() for word in found}
    for fault, checks, tests in table():
        assert checks, fault
        for test in tests.split(", "):
            if test.startswith("`"):
                assert test.strip("`") in names, fault
            else:
                told[test].add(fault)
    assert told == found
