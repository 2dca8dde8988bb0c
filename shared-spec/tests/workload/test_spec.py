"""The spec: nothing unknown, nothing missing, nothing contradictory; and what is computed from it."""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_spec.errors import UserError
from shared_spec.workload.spec import Spec, load_spec, parse_spec

CONTENT = json.loads(resources.files("shared_spec").joinpath("workload", "spec.json").read_text(encoding="utf-8"))
Keys = tuple[str, ...]


def leaves(value: Any, path: Keys = ()) -> Iterator[Keys]:
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def changed(path: Keys, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(CONTENT))
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


def removed(path: Keys) -> dict[str, Any]:
    content = changed(path, None)
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    del place[last]
    return content


def value_at(path: Keys) -> Any:
    value = CONTENT
    for key in path:
        value = value[key]
    return value


def get(spec: Spec, path: Keys) -> Any:
    value: Any = spec
    for name in path:
        value = getattr(value, name)
    return value


LEAVES = list(leaves(CONTENT))
WORKLOAD = [path for path in LEAVES if path[0] != "profiles"]


# Reading


def test_every_value_of_the_file_is_in_the_spec(standard_spec: Spec) -> None:
    for path in LEAVES:
        value = value_at(path)
        assert get(standard_spec, path) == (tuple(value) if isinstance(value, list) else value), path


def test_a_spec_survives_being_written(standard_spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(standard_spec.to_dict()))
    assert load_spec(tmp_path / "s.json") == standard_spec
    assert standard_spec.to_dict() == CONTENT


def test_a_spec_cannot_be_changed(standard_spec: Spec) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        standard_spec.training.batch_size = 16  # type: ignore[misc]


# Errors


def message_of(content: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_spec(content, "my.json")
    text = str(caught.value)
    assert text.startswith("my.json: ")
    assert text.endswith("; compare with the spec.json of shared-spec.")
    return text


@pytest.mark.parametrize("path", [*LEAVES, *[(section,) for section in CONTENT]], ids="/".join)
def test_missing_key_is_named(path: Keys) -> None:
    text = message_of(removed(path))
    assert f"'{path[-1]}' is a required property" in text
    assert f"my.json: /{'/'.join(path[:-1])}: " in text


@pytest.mark.parametrize(
    "section", sorted({path[:depth] for path in LEAVES for depth in range(len(path))}), ids="/".join
)
def test_unknown_key_is_named(section: Keys) -> None:
    text = message_of(changed((*section, "dropout"), 0.1))
    assert f"my.json: /{'/'.join(section)}: " in text
    assert "'dropout' was unexpected" in text


@pytest.mark.parametrize("path", LEAVES, ids="/".join)
def test_wrong_type_is_named(path: Keys) -> None:
    wrong = [None, True, {}, [[]], *(["32", -1] if isinstance(value_at(path), int | float) else [])]
    for value in wrong:
        assert f"my.json: /{'/'.join(path)}" in message_of(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("training/batch_size", 0, "0 is less than the minimum of 1"),
        ("training/batch_size", 32.5, "32.5 is not of type 'integer'"),
        ("model/depth", 12.0, "12.0 is not of type 'integer'"),
        ("data/train_images", 50_001, "50001 is greater than the maximum of 50000"),
        ("data/label_smoothing", 1.0, "1.0 is greater than or equal to the maximum of 1"),
        ("training/seeds", [1, 1], "has non-unique elements"),
        ("training/seeds", [], "[] has fewer than 1 items"),
        ("profiles/quick/phases/0", "warmup", "'warmup' is not one of"),
        ("name", "../../etc", "'../../etc' does not match"),
    ],
)
def test_value_out_of_range_is_named(path: str, value: object, reason: str) -> None:
    *parents, last = path.split("/")
    content = changed(("profiles", "quick", "phases"), [value]) if last == "0" else changed((*parents, last), value)
    assert f"my.json: /{path}: {reason}" in message_of(content)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("model/patch_size", 15, "/model/image_size: is no multiple of /model/patch_size"),
        ("model/image_size", 240, "/model/image_size: is no multiple of /data/image_size"),
        ("model/heads", 5, "/model/dim: is no multiple of /model/heads"),
        ("model/classes", 99, "/model/classes: is less than the 100 classes of CIFAR-100"),
        ("training/batch_size", 50_001, "/training/batch_size: is more than /data/train_images"),
        ("training/seeds", [0], "/training/seeds: has fewer entries than /profiles/full has repeats"),
        ("profiles/full/max_repeats", 1, "/profiles/full/max_repeats: is less than /profiles/full/repeats"),
    ],
)
def test_contradiction_is_named(path: str, value: object, reason: str) -> None:
    assert f"my.json: {reason}" in message_of(changed(tuple(path.split("/")), value))


def test_every_problem_is_told() -> None:
    text = message_of(changed(("training", "batch_size"), 0) | {"extra": 1})
    assert "my.json: /: 'extra' was unexpected" in text
    assert "my.json: /training/batch_size: 0 is less" in text


@pytest.mark.parametrize("content", [None, [], 3, "spec", {}])
def test_something_else_than_a_spec(content: object) -> None:
    message_of(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(path=st.sampled_from([*LEAVES, *[(section,) for section in CONTENT]]), value=JSON)
def test_any_value_anywhere_gives_a_spec_or_a_user_error(path: Keys, value: object) -> None:
    try:
        spec = parse_spec(changed(path, value), "my.json")
    except UserError:
        return
    assert parse_spec(spec.to_dict(), "again") == spec


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not valid JSON"),
        (json.dumps(CONTENT).encode()[:-20], "is not valid JSON"),
        (b'{"name": "caf\xe9"}', "is not UTF-8 text"),
        (json.dumps(CONTENT).replace("0.02", "NaN").encode(), "NaN is not a JSON number"),
        (json.dumps(CONTENT).replace('"std": 0.02', '"std": 0.02, "std": 0.2').encode(), "key 'std' occurs twice"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_file_that_is_no_json(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"/s\.json: .*{reason}"):
        load_spec(tmp_path / "s.json")


@pytest.mark.parametrize("name", ["nowhere.json", "."])
def test_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read .*; give the path of a JSON file"):
        load_spec(tmp_path / name)


# Fingerprint


def different(path: Keys) -> Any:
    """Another valid value for the field at `path` that contradicts no other field."""
    value = value_at(path)
    special = {
        ("model", "image_size"): 448,
        ("model", "patch_size"): 8,
        ("model", "heads"): 12,
        ("model", "channels"): None,
        ("data", "image_size"): None,
        ("data", "train_images"): 49_999,
        ("data", "test_images"): 9_999,
        ("version",): "1.2",
        ("training", "seeds"): [*range(1, 9)],
    }
    if path in special:
        return special[path]
    if isinstance(value, str):
        return value + "-b"
    if isinstance(value, list):
        return [item / 2 for item in value] if isinstance(value[0], float) else value[:-1]
    return value * 2 if isinstance(value, int) else value / 2


@pytest.mark.parametrize("path", [path for path in WORKLOAD if different(path) is not None], ids="/".join)
def test_fingerprint_changes_with_every_field_of_the_workload(standard_spec: Spec, path: Keys) -> None:
    spec = parse_spec(changed(path, different(path)), "changed")
    assert spec.fingerprint != standard_spec.fingerprint
    assert not spec.is_standard


BEFORE_1_1 = "0c376fa1"
"""How the fingerprint of the standard workload began when it was evaluated once an epoch."""


def test_a_spec_that_is_evaluated_once_keeps_the_fingerprint_that_it_had(standard_spec: Spec) -> None:
    training = standard_spec.training.changed(evaluations_per_epoch=1)
    assert standard_spec.changed(version="1.0", training=training).fingerprint.startswith(BEFORE_1_1)


@pytest.mark.parametrize("path", [path for path in WORKLOAD if different(path) is not None], ids="/".join)
def test_training_fingerprint_is_that_of_all_but_the_evaluations(standard_spec: Spec, path: Keys) -> None:
    spec = parse_spec(changed(path, different(path)), "changed")
    same = path in (("version",), ("training", "evaluations_per_epoch"))
    assert (spec.training_fingerprint == standard_spec.training_fingerprint) is same


@pytest.mark.parametrize(
    ("images", "count", "steps"),
    [(64, 1, (16,)), (64, 2, (8, 16)), (60, 2, (7, 15)), (60, 4, (3, 7, 11, 15)), (8, 5, (1, 2)), (4, 2, (1,))],
)
def test_evaluations_are_spread_over_the_epoch_and_end_it(
    tiny_spec: Spec, images: int, count: int, steps: tuple[int, ...]
) -> None:
    spec = tiny_spec.changed(
        data=tiny_spec.data.changed(train_images=images),
        training=tiny_spec.training.changed(evaluations_per_epoch=count),
    )
    assert spec.evaluation_steps(4) == steps


def test_fingerprint_does_not_change_with_the_profiles(standard_spec: Spec) -> None:
    profiles = CONTENT["profiles"]
    spec = parse_spec(changed(("profiles",), {"quick": profiles["full"], "full": profiles["quick"]}), "swapped")
    assert spec.profiles != standard_spec.profiles
    assert spec.fingerprint == standard_spec.fingerprint
    assert spec.is_standard


def test_fingerprint_is_what_it_says(standard_spec: Spec) -> None:
    """Of canonical JSON, so that anything that reads JSON can recompute it; 1 where 1.0 is meant is the same number."""
    content = {key: value for key, value in CONTENT.items() if key != "profiles"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert standard_spec.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert parse_spec(changed(("optimizer", "clip_norm"), 1), "int").fingerprint == standard_spec.fingerprint


# What follows from it


def test_model_figures(standard_spec: Spec) -> None:
    model = standard_spec.model
    assert (model.grid, model.tokens, model.head_dim) == (14, 197, 64)
    assert model.forward_flops / 1e9 == pytest.approx(9.197, abs=1e-3)
    assert model.training_flops == 3 * model.forward_flops


def test_forward_flops_are_those_of_the_products_one_by_one(standard_spec: Spec) -> None:
    """(rows, inner, columns) of each matrix product, from the shapes of DeiT-small."""
    block = [
        (197, 384, 1152),
        *[(197, 64, 197), (197, 197, 64)] * 6,
        (197, 384, 384),
        (197, 384, 1536),
        (197, 1536, 384),
    ]
    products = [(196, 768, 384), *block * 12, (1, 384, 100)]
    assert standard_spec.model.forward_flops == sum(2 * math.prod(product) for product in products)


def test_steps_per_epoch_leaves_out_the_rest(standard_spec: Spec) -> None:
    assert standard_spec.steps_per_epoch(32) == 1562
    assert standard_spec.steps_per_epoch(50_000) == 1
    assert standard_spec.steps_per_epoch(50_001) == 0


def test_learning_rate_at_the_corners(standard_spec: Spec) -> None:
    """23,430 steps: 1,172 of warm-up (5 %, 1171.5 rounded to even), 22,258 of cosine, whose half way is step 12,301."""
    rates = {
        step: standard_spec.learning_rate(step, 32) for step in (0, 586, 1171, 1172, 12_301, 23_429, 23_430, 10**6)
    }
    assert rates[0] == 1e-6
    assert rates[586] == pytest.approx((1e-6 + 1.25e-4) / 2, rel=1e-12)
    assert rates[1171] == pytest.approx(1.25e-4 - 1.24e-4 / 1172, rel=1e-12)
    assert rates[1172] == pytest.approx(1.25e-4, rel=1e-12)
    assert rates[12_301] == pytest.approx((1.25e-4 + 1e-5) / 2, rel=1e-12)
    assert 1e-5 < rates[23_429] < 1e-5 + 1e-12
    assert rates[23_430] == rates[10**6] == pytest.approx(1e-5, rel=1e-12)


def test_peak_learning_rate_is_proportional_to_the_batch(standard_spec: Spec) -> None:
    for batch_size in (8, 32, 256):
        steps = 15 * standard_spec.steps_per_epoch(batch_size)
        peak = max(standard_spec.learning_rate(step, batch_size) for step in range(steps))
        assert peak == pytest.approx(1.25e-4 * batch_size / 32, rel=1e-12)


def test_schedule_without_warm_up_starts_at_its_peak(standard_spec: Spec) -> None:
    schedule = standard_spec.schedule.changed(warmup_fraction=0.0)
    spec = standard_spec.changed(schedule=schedule)
    assert spec.learning_rate(0, 32) == 1.25e-4
