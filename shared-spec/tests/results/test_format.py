"""Results of older formats."""

import copy
from pathlib import Path
from typing import Any

import pytest

from shared_spec import files
from shared_spec.results import format

COMMITTED = sorted((Path(__file__).parents[3] / "results").glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_result_can_still_be_read(path: Path) -> None:
    assert format.problems(format.upgrade(files.read(path))) == []


def old() -> dict[str, Any]:
    memory = {"host_peak": 2, "host_before_model": 1}
    tries = [{"batch_size": 32, "measurements": {"memory": memory}}, {"batch_size": 64, "measurements": None}]
    return {
        "schema_version": "1.0",
        "phases": [
            {"phase": "training", "measurements": {"memory": memory, "loss_trace": [4.6, None]}},
            {"phase": "max_batch", "measurements": {"tries": tries}},
            {"phase": "latency", "measurements": None},
        ],
    }


def test_what_1_0_did_not_record_becomes_null_and_a_wrong_name_a_right_one() -> None:
    before = old()
    new = format.upgrade(before)
    training, max_batch, latency = new["phases"]
    assert new["schema_version"] == "1.1"
    assert all(phase["startup"] is None and phase["conditions"] is None for phase in new["phases"])
    assert training["measurements"]["feeding_blocks"] is None
    assert training["measurements"]["memory"] == {"host_peak": 2, "host_before_framework": 1}
    assert max_batch["measurements"]["tries"][0]["measurements"]["memory"]["host_before_framework"] == 1
    assert latency["measurements"] is None
    assert before == old()


@pytest.mark.parametrize("phases", [None, 3, "x", [3, None, "x"], [{"phase": []}], [{"measurements": [1]}]])
def test_what_is_no_result_is_left_for_the_schema_to_object_to(phases: Any) -> None:
    content = {**old(), "phases": phases}
    assert format.problems(format.upgrade(copy.deepcopy(content)))


def test_a_result_of_this_version_stays_as_it_is() -> None:
    content = {"schema_version": "1.1", "phases": [{"phase": "training"}]}
    assert format.upgrade(content) is content
