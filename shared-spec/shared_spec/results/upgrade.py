"""Results of older versions of the format in the words of this one: the one place that knows what has changed."""

import re
from collections.abc import Callable
from typing import Any

OLDER_VERSIONS = ("1.0", "1.1", "1.2")


def upgrade(result: dict[str, Any]) -> dict[str, Any]:
    """A result of any version in OLDER_VERSIONS in the words of this one; of any other version as it is.

    What an older version did not record becomes null or is left out, never a guess. Whether the outcome is valid is
    for the types to say: an older file that was not stays so.
    """
    if result.get("schema_version") == "1.0":
        result = {"parallel": None, **result, "schema_version": "1.1", "phases": _each(_from_1_0, result)}
    if result.get("schema_version") == "1.1":
        result = {
            **_headline_memory(result),
            "cpu_threads": None,
            **result,
            "schema_version": "1.2",
            "phases": _each(_from_1_1, result),
        }
    if result.get("schema_version") == "1.2":
        result = {
            "missing": None,
            "wide_intervals": None,
            **result,
            "schema_version": "2.0",
            "profile": _changed_in(result.get("profile"), "content", _repeats_of_inference),
            "spec": _changed_in(result.get("spec"), "content", _evaluated_once),
            "phases": _each(lambda outcome: _from_1_2(outcome, result.get("spec")), result),
        }
    return result


def _each(change: Callable[[dict[str, Any]], dict[str, Any]], result: dict[str, Any]) -> Any:
    """The outcomes, changed; whatever is no outcome stays as it is, for the types to object to."""
    phases = result.get("phases")
    if not isinstance(phases, list):
        return phases
    return [change(outcome) if isinstance(outcome, dict) else outcome for outcome in phases]


# 1.0 to 1.1


NEW_IN_MEASUREMENTS = {
    "training": ("parallel", "window_host_seconds", "feeding_blocks"),
    "convergence": ("parallel",),
}


def _from_1_0(outcome: dict[str, Any]) -> dict[str, Any]:
    phase, measured = outcome.get("phase"), outcome.get("measurements")
    if isinstance(measured, dict):
        new = NEW_IN_MEASUREMENTS.get(phase, ()) if isinstance(phase, str) else ()
        measured = {**dict.fromkeys(new), **_renamed_memory(measured)}
    return {"startup": None, "conditions": None, **outcome, "measurements": measured}


def _renamed_memory(value: Any) -> Any:
    """`value` with the memory figures within it called what they are.

    What 1.0 called host_before_model was taken before the framework was imported.
    """
    if isinstance(value, dict):
        value = {name: _renamed_memory(item) for name, item in value.items()}
        if "host_before_model" in value:
            value["host_before_framework"] = value.pop("host_before_model")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        value = [_renamed_memory(item) for item in value]
    return value


# 1.1 to 1.2


HEADLINE_MEMORY = {
    "mlx": ["mlx_peak", "host_peak"],
    "tf-cuda": ["tf_peak", "host_peak"],
    "torch-ipex": ["host_peak"],
}
"""Figures that stand for the peak of a platform, which every result says of itself since."""
BEFORE_THE_CAUSE = re.compile(r"(not even batch \d+ trains: )?(rank \d+: )?")
FAILURES = {
    "out_of_memory": re.compile(
        r"out of memory|stopped: it took more memory|killed by the system's out-of-memory killer"
    ),
    "too_slow": re.compile(r"stopped: it took longer"),
    "killed": re.compile(r"the process was killed by"),
    "ranks": re.compile(
        r"rank \d+ (was killed|ended)|nothing moved for|the ranks ended|.*: rank \d+ differs from rank 0$"
    ),
}
"""How the reasons of each kind of failure were worded; any other is a fault."""


def _headline_memory(result: dict[str, Any]) -> dict[str, list[str]]:
    platform = result.get("platform")
    known = isinstance(platform, str) and platform in HEADLINE_MEMORY
    return {"headline_memory": HEADLINE_MEMORY[str(platform)]} if known else {}


def _from_1_1(outcome: dict[str, Any]) -> dict[str, Any]:
    reason = outcome.get("reason")
    failure = kind_of_failure(reason) if outcome.get("status") == "failed" and isinstance(reason, str) else None
    phase, measured = outcome.get("phase"), outcome.get("measurements")
    if isinstance(measured, dict) and isinstance(phase, str):
        outcome = {**outcome, "measurements": _unproved(phase, measured)}
    return {"failure": failure, **outcome}


PROVED = ("ceiling", "training", "latency", "inference", "convergence")
UNPROVED = {"checks": None, "unchecked": None}


def _unproved(phase: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Measurements of which no output was looked at."""
    measured = {**(UNPROVED if phase in PROVED else {}), **measured}
    if phase == "training":
        measured = {"norm_trace": None, **measured}
    if phase == "convergence":
        measured = {"class_images": None, **measured, **_with_each(measured, "epochs", _uncounted)}
    return {**measured, **_with_each(measured, "tries", _try_unproved)} if phase == "max_batch" else measured


def _with_each(
    measured: dict[str, Any], name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    rows = measured.get(name)
    if not isinstance(rows, list):
        return {}
    return {name: [change(row) if isinstance(row, dict) else row for row in rows]}


def _uncounted(epoch: dict[str, Any]) -> dict[str, Any]:
    return {"class_right": None, **epoch}


def _try_unproved(one: dict[str, Any]) -> dict[str, Any]:
    measured = one.get("measurements")
    return {**one, "measurements": {**UNPROVED, **measured}} if isinstance(measured, dict) else one


def kind_of_failure(reason: str) -> str:
    """Kind of a failure (format.FailureKind) by the sentence that was all that 1.1 kept of it."""
    cause = BEFORE_THE_CAUSE.sub("", reason, count=1)
    return next((kind for kind, words in FAILURES.items() if words.match(cause)), "fault")


# 1.2 to 2.0


def _changed_in(value: Any, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """`value` with what it has under `name` changed; as it is where that is no object."""
    inner = value.get(name) if isinstance(value, dict) else None
    return {**value, name: change(inner)} if isinstance(inner, dict) else value


def _repeats_of_inference(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile of when all short measurements were repeated equally often."""
    return {"inference_repeats": profile["repeats"], **profile} if "repeats" in profile else profile


def _evaluated_once(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec of when there was one evaluation an epoch, at its end."""
    spec = _changed_in(spec, "training", lambda training: {"evaluations_per_epoch": 1, **training})
    changed: dict[str, Any] = _changed_in(spec, "profiles", _each_profile)
    return changed


def _each_profile(profiles: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _repeats_of_inference(profile) if isinstance(profile, dict) else profile
        for name, profile in profiles.items()
    }


def _from_1_2(outcome: dict[str, Any], spec: Any) -> dict[str, Any]:
    outcome = {"ran": None, **outcome}
    if isinstance(startup := outcome.get("startup"), dict):
        outcome["startup"] = {"cached_programs": None, **startup}
    measured = outcome.get("measurements")
    if outcome.get("phase") == "convergence" and isinstance(measured, dict):
        outcome["measurements"] = _evaluations(measured, spec)
    return outcome


def _evaluations(measured: dict[str, Any], spec: Any) -> dict[str, Any]:
    """A full training whose epochs were numbered; what is not as it should be stays, for the types to object to."""
    try:
        images, batch, rows = spec["content"]["data"]["train_images"], measured["batch_size"], measured["epochs"]
        steps_per_epoch = _whole(images) // _whole(batch)
        rows = [
            {
                "step": _whole(row["epoch"]) * steps_per_epoch,
                "first_seconds": None,
                **{name: value for name, value in row.items() if name != "epoch"},
            }
            for row in rows
        ]
    except (TypeError, KeyError, ZeroDivisionError, AttributeError):
        return measured
    new = {"checkpoint_write_seconds": None, "first_inference_seconds": None, "steps_per_epoch": steps_per_epoch}
    return {**new, **{name: value for name, value in measured.items() if name != "epochs"}, "evaluations": rows}


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value
