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


def old_training(**changed: Any) -> dict[str, Any]:
    """A result of 1.2 with a full training of two epochs of 1,562 steps."""
    measured = {
        "batch_size": 32, "checkpoint_seconds": 3.0,
        "epochs": [{"epoch": n, "top1": n / 10, "seconds": 9.0 * n} for n in (1, 2)],
    } | changed  # fmt: skip
    profile = {"repeats": 5}
    return {
        "schema_version": "1.2",
        "profile": {"name": "full", "content": profile},
        "spec": {
            "content": {
                "data": {"train_images": 50_000}, "training": {"epochs": 2},
                "profiles": {"quick": {"repeats": 1}, "full": profile},
            }
        },
        "phases": [
            {"phase": "convergence", "startup": {"process_seconds": 1.0}, "measurements": measured},
            {"phase": "latency", "startup": None, "measurements": None},
        ],
    }  # fmt: skip


def test_epochs_become_evaluations_at_their_ends() -> None:
    before = old_training()
    new = upgrade(before)
    training, latency = new["phases"]
    assert (new["schema_version"], new["missing"], new["wide_intervals"]) == (format.SCHEMA_VERSION, None, None)
    assert training["ran"] is latency["ran"] is training["startup"]["cached_programs"] is latency["startup"] is None
    measured = training["measurements"]
    assert "epochs" not in measured
    assert [row["step"] for row in measured["evaluations"]] == [1562, 3124]
    assert [row["top1"] for row in measured["evaluations"]] == [0.1, 0.2]
    assert all("epoch" not in row and row["first_seconds"] is None for row in measured["evaluations"])
    assert measured["steps_per_epoch"] == 1562
    assert measured["checkpoint_write_seconds"] is measured["first_inference_seconds"] is None
    assert new["spec"]["content"]["training"]["evaluations_per_epoch"] == 1
    repeats = [profile["inference_repeats"] for profile in new["spec"]["content"]["profiles"].values()]
    assert (repeats, new["profile"]["content"]["inference_repeats"]) == ([1, 5], 5)
    assert before == old_training()


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 3}, {"epochs": [7]}, {"epochs": [{}]}, {"epochs": [{"epoch": "x" * 10**6}]},
        {"epochs": [{"epoch": True}]}, {"batch_size": 0}, {"batch_size": "32"}, {"batch_size": None},
    ],
)  # fmt: skip
def test_a_training_that_is_none_is_left_for_the_types_to_object_to(changed: dict[str, Any]) -> None:
    content = upgrade(old_training(**changed))
    assert content["phases"][0]["measurements"] == old_training(**changed)["phases"][0]["measurements"]
