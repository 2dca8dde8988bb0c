"""Building, checking and writing the result of a run."""

from pathlib import Path
from typing import Any

from shared_spec import jsonio

SCHEMA_VERSION = "1.1"
OLDER_VERSIONS = ("1.0",)
"""Versions that `upgrade` reads. History: 1.0 the first; 1.1 adds fields that are null where 1.0 had not measured them."""
SCHEMA = "results.schema.json"


def upgrade(result: dict[str, Any]) -> dict[str, Any]:
    """A result of any version in OLDER_VERSIONS in the words of this one; a result of this version as it is.

    What an older version did not record becomes null or is left out, never a guess. Whether the outcome is valid is
    for `problems` to say: an older file that was not stays so.
    """
    if result.get("schema_version") == "1.0":
        result = {"parallel": None, **result, "schema_version": "1.1"}
        if isinstance(result.get("phases"), list):
            result["phases"] = [_with_parallel(outcome) for outcome in result["phases"]]
    return result


def _with_parallel(outcome: Any) -> Any:
    """A phase of 1.0 with the fields of several ranks, which 1.0 did not have."""
    shared = isinstance(outcome, dict) and outcome.get("phase") in ("training", "convergence")
    if not shared or not isinstance(outcome.get("measurements"), dict):
        return outcome
    return {**outcome, "measurements": {"parallel": None, **outcome["measurements"]}}


def problems(result: Any) -> list[tuple[str, str]]:
    """All that is wrong with `result`, as (JSON pointer, what); empty for a valid one."""
    return list(jsonio.problems(result, SCHEMA))


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
    jsonio.write(path, result)
    return path
