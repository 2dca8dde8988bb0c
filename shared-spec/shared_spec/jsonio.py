"""Strict JSON in, atomic JSON out, and schema problems told as sentences."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from shared_spec.errors import UserError


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return value


def loads(text: str) -> Any:
    """Parse JSON; NaN, Infinity (also as 1e999) and duplicate keys are errors.

    Raises:
        ValueError: `text` is not JSON, or nested deeper than the parser can follow.
    """
    try:
        return json.loads(
            text, parse_constant=_reject_constant, parse_float=_finite, object_pairs_hook=_reject_duplicates
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or not JSON.
    """
    try:
        return loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text, so it is not a JSON file.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); it may be truncated.") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` either holds all of it or is untouched, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; a result is meant to be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically; NaN and Infinity are refused with ValueError."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def _items(validator: Validator, items: Any, array: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword `items`, quick for long arrays of floats or of [int, float]: hundreds of thousands are no rarity.

    This package's schemas only bound these numbers from below and above, so the least and the greatest stand for all.
    """
    if isinstance(array, list) and len(array) > 4 and (extremes := _extremes(array)):
        inner = validator.evolve(schema=items)
        if all(map(inner.is_valid, extremes)):
            return
    yield from jsonschema.Draft202012Validator.VALIDATORS["items"](validator, items, array, schema)


def _extremes(array: list[Any]) -> list[Any]:
    """The least and the greatest of floats or, by column, of rows [int, float]; none for any other array."""
    if all(type(item) is float for item in array):
        return [min(array), max(array)]
    if all(type(row) is list and len(row) == 2 and type(row[0]) is int and type(row[1]) is float for row in array):
        columns = list(zip(*array, strict=True))
        return [list(map(min, columns)), list(map(max, columns))]
    return []


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"items": _items})


def _inlined(schema: Any, root: Any) -> Any:
    """`schema` with each "#/..." reference replaced by what it means, which takes a third off the time of validating.

    This package's schemas never refer to themselves.
    """
    if isinstance(schema, list):
        return [_inlined(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    own = {key: value if key == "$defs" else _inlined(value, root) for key, value in schema.items() if key != "$ref"}
    if "$ref" not in schema:
        return own
    found = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    meant = _inlined(found, root)
    both = (meant.keys() & own.keys()) - {"description"}
    return {"allOf": [meant, own]} if both else {**meant, **own}


@cache
def validator(schema_name: str) -> Validator:
    """Validator (JSON Schema 2020-12) for one of this package's own schemas, e.g. "spec.schema.json"."""
    schema = loads(resources.files("shared_spec").joinpath(schema_name).read_text(encoding="utf-8"))
    return _Validator(_inlined(schema, schema), format_checker=jsonschema.FormatChecker())


def problems(value: Any, schema_name: str) -> Iterator[tuple[str, str]]:
    """Everything in `value` that `schema_name` forbids, as (JSON pointer, what is wrong)."""
    for error in sorted(validator(schema_name).iter_errors(value), key=lambda e: list(map(str, e.absolute_path))):
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.absolute_path)
        message = error.message if len(error.message) <= 200 else error.message[:200] + " ..."
        yield pointer or "/", message
