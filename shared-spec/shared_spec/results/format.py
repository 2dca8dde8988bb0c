"""Building, checking and writing the result of a run."""

from pathlib import Path
from typing import Any

from shared_spec import files

SCHEMA_VERSION = "1.1"
OLDER_VERSIONS = ("1.0",)
"""Versions that `upgrade` reads. History: 1.0 the first; 1.1 adds fields that are null where 1.0 had not measured them."""
SCHEMA = "results/results.schema.json"


def upgrade(result: dict[str, Any]) -> dict[str, Any]:
    """A result of any version in OLDER_VERSIONS in the words of this one; a result of this version as it is.

    What an older version did not record becomes null or is left out, never a guess. Whether the outcome is valid is
    for `problems` to say: an older file that was not stays so.
    """
    if result.get("schema_version") == "1.0":
        result = {"parallel": None, **result, "schema_version": "1.1", "phases": _upgraded_phases(result.get("phases"))}
    return result


NEW_IN_PHASES = ("startup", "conditions")
NEW_IN_MEASUREMENTS = {
    "training": ("parallel", "window_host_seconds", "feeding_blocks"),
    "convergence": ("parallel",),
}
"""Fields of 1.1 that 1.0 had not measured."""


def _upgraded_phases(phases: Any) -> Any:
    """The outcomes with the fields of 1.1; whatever is no outcome stays as it is, for the schema to object to."""
    if not isinstance(phases, list):
        return phases
    return [_upgraded_phase(outcome) if isinstance(outcome, dict) else outcome for outcome in phases]


def _upgraded_phase(outcome: dict[str, Any]) -> dict[str, Any]:
    phase, measured = outcome.get("phase"), outcome.get("measurements")
    if isinstance(measured, dict):
        new = NEW_IN_MEASUREMENTS.get(phase, ()) if isinstance(phase, str) else ()
        measured = {**dict.fromkeys(new), **_renamed_memory(measured)}
    return {**dict.fromkeys(NEW_IN_PHASES), **outcome, "measurements": measured}


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


def problems(result: Any) -> list[tuple[str, str]]:
    """All that is wrong with `result`, as (JSON pointer, what); empty for a valid one."""
    return list(files.problems(result, SCHEMA))


def file_name(result: dict[str, Any]) -> str:
    """File name of a result: what ran, then when."""
    stamp = result["created"].replace("-", "").replace(":", "")
    words = (result["platform"], result["engine"], result["device"], result["precision"], result["profile"]["name"])
    return "-".join((*words, stamp)) + ".json"


def write(result: dict[str, Any], folder: Path) -> Path:
    """Validate `result`, write it into `folder` atomically, and return its path.

    Raises:
        ValueError: `result` does not fit the schema: a fault of this program, not of its user.
    """
    if found := problems(result):
        raise ValueError(f"the result breaks its own schema: {found[:3]}")
    path = folder / file_name(result)
    files.write(path, result)
    return path
