"""The result format: the types and the schema that is made from them refuse the same, and say what is wrong."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_spec import files, schema
from shared_spec.dev.schemas import SCHEMAS
from shared_spec.results import format
from shared_spec.results.measurements import Training
from shared_spec.results.quantities import Energy
from shared_spec.results.upgrade import upgrade

RESULTS = Path(__file__).parents[3] / "results"
Path_ = tuple[str | int, ...]


def cut(value: Any) -> Any:
    """`value` with arrays of numbers, and rows of them, cut to three items."""
    if isinstance(value, dict):
        return {key: cut(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cut(item) for item in (value if any(isinstance(item, dict) for item in value) else value[:3])]
    return value


def example() -> dict[str, Any]:
    """A real result of all phases, each once, and one of them failed: by far the most of a file are numbers."""
    (path,) = RESULTS.glob("tf-cuda-xla-cuda-bf16-full-*.json")
    content: dict[str, Any] = upgrade(files.read(path))
    phases = {outcome["phase"]: outcome for outcome in content["phases"]}
    failed = phases["latency"] | {
        "repeat": 7, "status": "failed", "failure": "killed", "reason": "the process was killed by SIGKILL",
        "startup": None, "backend": None, "measurements": None,
    }  # fmt: skip
    for row in ("evaluations", "tries", "sizes"):
        for outcome in phases.values():
            if row in outcome["measurements"]:
                outcome["measurements"][row] = outcome["measurements"][row][:2]
    training = phases["training"]["measurements"]
    training["parallel"] = {
        "rank_window_blocks": [training["window_blocks"]] * 2,
        "rank_step_seconds": [training["step_seconds"]] * 2,
        "communication_seconds": 0.01,
        "overlapped_seconds": None,
        "params_equal": True,
    }
    parallel = {"world_size": 2, "scaling": "weak", "engine": "x", "transport": None, "hosts": 1}
    return content | {"phases": [*map(cut, phases.values()), failed], "parallel": parallel}


EXAMPLE = example()
# A schema takes 12.0 and 1e300 for integers; the types take what is written as one.
WRITTEN_AS_INTEGER = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: type(value) is int
)
STRICT = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=WRITTEN_AS_INTEGER)
SCHEMA = STRICT(json.loads(schema.json_schema(format.Result)))


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = list(places(EXAMPLE))[1:]


def at(content: Any, path: Path_) -> Any:
    for key in path:
        content = content[key]
    return content


def changed(path: Path_, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(EXAMPLE)
    at(content, path[:-1])[path[-1]] = value
    return content


def alone(content: dict[str, Any], path: Path_) -> dict[str, Any]:
    """`content` with no other outcome than the one that `path` leads into: a tenth of the work for a validator."""
    inside = len(path) > 1 and path[0] == "phases"
    return content | {"phases": [content["phases"][path[1]]]} if inside else content


def check(content: dict[str, Any], path: Path_) -> None:
    """Types and schema refuse the same."""
    content = alone(content, path)
    assert refused(content) == (not SCHEMA.is_valid(content))


def refused(content: Any) -> bool:
    """By the types; fields that contradict one another are left out, as no schema can see them."""
    try:
        format.Result.model_validate(content)
    except ValidationError as error:
        return any(detail["type"] != "contradiction" for detail in error.errors())
    return False


def pointers(content: Any) -> set[str]:
    return {pointer for pointer, _ in format.problems(content)}


# Schema and types


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_the_schemas_are_those_of_the_types(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == schema.json_schema(SCHEMAS[path]), "python -m shared_spec.dev.schemas"


def test_the_example_is_a_result() -> None:
    assert format.problems(EXAMPLE) == []
    assert SCHEMA.is_valid(EXAMPLE)
    assert {outcome["phase"] for outcome in EXAMPLE["phases"]} == set(format.PHASES)


ODD = st.sampled_from(
    (
        None,
        -1,
        0,
        1,
        2**40,
        10**400,
        1.5,
        1e300,
        -0.5,
        True,
        False,
        "",
        "x",
        "x\n",
        "y" * 4001,
        "1.0",
        "2026",
        "ok",
        "failed",
        "bf16",
        "fault",
        "latency",
        [],
        {},
        {"a": {}},
        [[0, 0.5]],
        [[1, 1.0]] * 5 + [[1, -1.0]],
        [1.5] * 70,
    )
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PLACES), value=ODD)
def test_a_value_that_the_schema_refuses_the_types_refuse_and_no_other(path: Path_, value: Any) -> None:
    check(changed(path, value), path)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from([path for path in PLACES if isinstance(at(EXAMPLE, path), dict)]), data=st.data())
def test_names_that_the_schema_refuses_the_types_refuse_and_no_other(path: Path_, data: st.DataObject) -> None:
    content = copy.deepcopy(EXAMPLE)
    place = at(content, path)
    name = data.draw(st.sampled_from([*place, "more"]))
    if name in place:
        del place[name]
    else:
        place[name] = 1
    check(content, path)


@settings(max_examples=100, deadline=None)
@given(path=st.sampled_from([path for path in PLACES if isinstance(at(EXAMPLE, path), list)]), value=ODD)
def test_items_that_the_schema_refuses_the_types_refuse_and_no_other(path: Path_, value: Any) -> None:
    check(changed(path, [*at(EXAMPLE, path), value]), path)


# What is wrong


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("resumed", 0.0),
        ("resumed", True),
        ("resumed", "0"),
        ("resumed", 10**30),
        ("phases/0/seconds", True),
        ("phases/0/seconds", float("nan")),
        ("phases/0/seconds", float("inf")),
        ("phases/0/seconds", 10**400),
        ("environment/uptime_seconds", 10**400),
        ("environment/uptime_seconds", float("inf")),
        ("created", "2026-01-01T00:00:00Z\n"),
        ("schema_version", "1.1"),
    ],
)
def test_what_only_resembles_the_type_is_refused_where_it_stands(path: str, value: Any) -> None:
    names = tuple(int(name) if name.isdigit() else name for name in path.split("/"))
    assert pointers(changed(names, value)) == {f"/{path}"}


def test_every_problem_is_told_with_its_place_and_in_order() -> None:
    content = changed(("precision",), "fp8")
    del content["engine"]
    number = next(i for i, outcome in enumerate(content["phases"]) if outcome["phase"] == "training")
    content["phases"][number]["measurements"]["window_blocks"][0] = [0, -1.0]
    content["phases"][number]["surprise"] = 1
    window = f"/phases/{number}/measurements/window_blocks/0"
    assert format.problems(content) == [
        ("/", "'engine' is a required property"),
        (f"{window}/0", "0 is less than the minimum of 1"),
        (f"{window}/1", "-1.0 is less than or equal to the minimum of 0"),
        (f"/phases/{number}", "'surprise' was unexpected"),
        ("/precision", "'fp8' is not one of 'fp32' or 'bf16'"),
    ]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"phase": "cooking"}, "/phase"),
        ({"phase": []}, "/phase"),
        ({"status": "great"}, "/status"),
        ({"reason": "but"}, "/reason"),
        ({"failure": "fault"}, "/failure"),
        ({"backend": None}, "/backend"),
        ({"measurements": None}, "/measurements"),
        ({"status": "failed"}, "/failure"),
        ({"status": "failed"}, "/reason"),
        ({"status": "failed"}, "/measurements"),
    ],
)
def test_an_outcome_is_either_measured_or_failed(change: dict[str, Any], pointer: str) -> None:
    number = next(i for i, outcome in enumerate(EXAMPLE["phases"]) if outcome["phase"] == "ceiling")
    content = changed(("phases", number), EXAMPLE["phases"][number] | change)
    assert f"/phases/{number}{pointer}" in pointers(content)


@pytest.mark.parametrize("content", [None, [], "x", 3, {}, {"phases": 3}, {"phases": [3]}, {"a\ud800": 1, "~/": 2}])
def test_what_is_no_result_at_all(content: Any) -> None:
    assert format.problems(content)


def test_a_spec_that_contradicts_itself_is_told_where_it_does() -> None:
    content = changed(("spec", "content", "model", "heads"), 5)
    assert format.problems(content) == [("/spec/content/model/dim", "is no multiple of /model/heads")]


def test_energy_is_a_figure_or_a_reason() -> None:
    energy = {"joules": None, "reason": None, "source": "none", "scope": "nothing", "samples": 0}
    with pytest.raises(schema.Invalid, match="either joules or the reason"):
        schema.parse(Energy, energy)


def test_millions_of_problems_are_counted_only() -> None:
    content = EXAMPLE | {f"x{i}": 1 for i in range(20_000)}
    assert format.problems(content) == [("/", "has 20,000 problems")]


# Writing


def test_a_result_survives_being_written_to_the_nanosecond(tmp_path: Path) -> None:
    content = copy.deepcopy(EXAMPLE)
    number = next(i for i, outcome in enumerate(content["phases"]) if outcome["phase"] == "training")
    measured = content["phases"][number]["measurements"]
    measured["window_blocks"][0] = [3, 0.12345678949999]
    measured["step_seconds"][0] = 1e-12
    written = files.read(format.write(format.parse(content), tmp_path))
    assert files.read(format.write(format.parse(content), tmp_path, ".json.gz")) == written
    assert written["phases"][number]["measurements"]["window_blocks"][0] == [3, 0.123456789]
    assert written["phases"][number]["measurements"]["step_seconds"][0] == 1e-12
    assert format.problems(written) == []
    assert format.parse(written) == format.parse(format.parse(written).to_dict())


def test_figures_follow_from_the_samples() -> None:
    result = format.parse(EXAMPLE)
    (training,) = result.measured(Training)
    assert training.steps == sum(steps for steps, _ in training.window_blocks)
    assert training.images_per_second == pytest.approx(training.images / training.seconds, rel=1e-12)
    assert result.peak_memory(training.memory) == ("tf_peak", training.memory["tf_peak"])
    assert result.peak_memory({"host_peak": 3, "tf_peak": None}) == ("host_peak", 3)
    assert result.peak_memory({}) is None
    assert result.backend is not None
    assert result.file_stem.startswith("tf-cuda-xla-cuda-bf16-full-2026")
