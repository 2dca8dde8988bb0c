"""Whether a result is fit to be published."""

from pathlib import Path
from typing import Any

import pytest

from aggregate.tests.factory import FULL_PHASES, call, make_result, save, small_spec


def test_check_of_a_good_result(tmp_path: Path) -> None:
    done = call("check", save(make_result(phases=FULL_PHASES), tmp_path))
    assert done.exit_code == 0, done.stdout
    assert done.stdout.endswith("Fit to be published.\n")
    assert "!  the quick profile" in done.stdout
    assert "no full training" not in done.stdout


def test_check_says_that_nothing_was_trained_to_the_end(tmp_path: Path) -> None:
    done = call("check", save(make_result(), tmp_path))
    assert "!  no full training" in done.stdout


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"spec": small_spec()}, "no  not the standard workload (/name is tiny"),
        ({"conformance": False}, "no  conformance failed: failed logits"),
        ({"conformance": None}, "no  conformance not checked"),
        ({"warnings": ["see /home/jane/deit"]}, "no  a path of a user at /warnings/0"),
        ({"warnings": ["see /opt/secret/tool"]}, "no  a path, or the name of this host or user, at /warnings/0"),
        ({"warnings": ["ask jane.doe@example.org"]}, "no  an e-mail address at /warnings/0"),
        ({"warnings": ["token ghp_0123456789abcdefghij0123"]}, "no  a key at /warnings/0"),
        ({"device_name": "box at 192.168.0.7"}, "no  an address of a private network at /phases/0/backend/device/name"),
    ],
)
def test_check_of_a_result_that_is_not_fit(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    done = call("check", save(make_result(**change), tmp_path))
    assert done.exit_code == 1
    assert text in done.stdout
    assert done.stdout.endswith("Not fit to be published.\n")


def test_check_of_what_is_changed_unknown_or_broken(tmp_path: Path) -> None:
    for change, text in (({"git_clean": False}, "a checkout with changes"), ({"git_commit": None}, "which commit")):
        result = make_result()
        result["software"] |= change
        assert text in call("check", save(result, tmp_path)).stdout
    assert "/engine" in call("check", save(make_result() | {"engine": ""}, tmp_path)).stdout
    assert call("check", tmp_path / "missing.json").exit_code == 1
    versions = make_result()
    versions["software"]["packages"] = {"nvidia-curand-cu12": "10.3.9.90", "x": "192.168.1.1"}
    assert call("check", save(versions, tmp_path)).exit_code == 0
