"""Building, checking and writing the result of a run."""

from pathlib import Path
from typing import Any

from shared_spec import jsonio

SCHEMA_VERSION = "1.0"
SCHEMA = "results.schema.json"


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
