"""Results of older formats."""

import copy
from pathlib import Path
from typing import Any

import pytest

from shared_spec import files
from shared_spec.results import format
from shared_spec.results.upgrade import OLDER_VERSIONS, kind_of_failure, upgrade

COMMITTED = sorted((Path(__file__).parents[3] / "results").glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_result_can_still_be_read(path: Path) -> None:
    assert format.problems(upgrade(files.read(path))) == []


def old(version: str = "1.0") -> dict[str, Any]:
    memory = {"host_peak": 2, "host_before_model": 1}
    tries = [{"batch_size": 32, "measurements": {"memory": memory}}, {"batch_size": 64, "measurements": None}]
    return {
        "schema_version": version,
        "platform": "tf-cuda",
        "phases": [
            {"phase": "training", "measurements": {"memory": memory, "loss_trace": [4.6, None]}},
            {"phase": "max_batch", "measurements": {"tries": tries}},
            {"phase": "latency", "measurements": None, "status": "failed", "reason": "out of memory: full"},
        ],
    }


def test_what_1_0_did_not_record_becomes_null_and_a_wrong_name_a_right_one() -> None:
    before = old()
    new = upgrade(before)
    training, max_batch, latency = new["phases"]
    assert new["schema_version"] == format.SCHEMA_VERSION
    assert all(phase["startup"] is None and phase["conditions"] is None for phase in new["phases"])
    assert training["measurements"]["feeding_blocks"] is None
    assert training["measurements"]["memory"] == {"host_peak": 2, "host_before_framework": 1}
    assert max_batch["measurements"]["tries"][0]["measurements"]["memory"]["host_before_framework"] == 1
    assert latency["measurements"] is None
    assert before == old()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_what_1_1_did_not_record_follows_from_what_it_did(version: str) -> None:
    new = upgrade(old(version))
    assert new["headline_memory"] == ["tf_peak", "host_peak"]
    assert [phase["failure"] for phase in new["phases"]] == [None, None, "out_of_memory"]
    if version == "1.1":
        assert new["phases"][0]["measurements"]["memory"] == {"host_peak": 2, "host_before_model": 1}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("out of memory: Unable to allocate 5 GiB", "out_of_memory"),
        ("rank 1: out of memory: full", "out_of_memory"),
        ("stopped: it took more memory than the share of this machine's it may have", "out_of_memory"),
        ("killed by the system's out-of-memory killer", "out_of_memory"),
        ("not even batch 32 trains: out of memory: full", "out_of_memory"),
        ("stopped: it took longer than a try may", "too_slow"),
        ("the process was killed by SIGKILL", "killed"),
        ("rank 1 was killed by SIGKILL", "ranks"),
        ("rank 0 ended with status 1", "ranks"),
        ("rank 0: nothing moved for 8 s: a rank has died or hangs", "ranks"),
        ("the ranks ended without an outcome; last words: none", "ranks"),
        ("parameters after the training steps: rank 1 differs from rank 0", "ranks"),
        ("rank 1: ValueError: x", "fault"),
        ("the process ended with status 1 and no outcome; last words: none", "fault"),
        ("ValueError: out of memory", "fault"),
    ],
)
def test_kind_of_a_failure_that_was_a_sentence(reason: str, kind: str) -> None:
    assert kind_of_failure(reason) == kind


@pytest.mark.parametrize("phases", [None, 3, "x", [3, None, "x"], [{"phase": []}], [{"measurements": [1]}]])
@pytest.mark.parametrize("version", OLDER_VERSIONS)
def test_what_is_no_result_is_left_for_the_types_to_object_to(phases: Any, version: str) -> None:
    content = {**old(version), "phases": phases, "platform": phases}
    assert format.problems(upgrade(copy.deepcopy(content)))


@pytest.mark.parametrize("version", [format.SCHEMA_VERSION, "3.0", None, [], 1.1])
def test_a_result_of_another_version_stays_as_it_is(version: Any) -> None:
    content = {"schema_version": version, "phases": [{"phase": "training"}]}
    assert upgrade(content) is content
