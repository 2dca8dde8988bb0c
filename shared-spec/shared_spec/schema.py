"""Types of the JSON that is read and written here: their base, all that is wrong with a value, and their JSON schemas."""

import json
import reprlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

Problem = tuple[str, str]
"""(JSON pointer, what is wrong there)."""
LISTED = 10_000
"""Beyond so many problems only their number is told: a hostile file may have millions."""
TAG = "\0"
"""What the tag of a union begins with; it is in pydantic's path to a problem, and has no place in the pointer."""

ARRAY = Strict(False)
"""Lets a list stand for a tuple, as JSON has no tuples; its items stay strict."""
Finite = Annotated[float, Field(ge=-sys.float_info.max, le=sys.float_info.max)]


class Model(BaseModel):
    """An object of exactly the fields that are declared, in exactly their types: no true for 1, no "1", no 1.0 for 1."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        regex_engine="python-re",  # which knows (?!\n)
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as they stand in a file."""
        return self.model_dump(mode="json")

    def changed(self, **changes: Any) -> Self:
        """A copy with other values in some fields; they are not checked."""
        return self.model_copy(update=changes)


M = TypeVar("M", bound=BaseModel)


class Invalid(ValueError):
    """A value is not of its type; `problems` has everything that is wrong with it, in order of the pointers."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{pointer}: {message}" for pointer, message in problems[:3]))
        self.problems = problems

    def of(self, source: str) -> str:
        """All problems of what `source` names, one a line from the second on."""
        return "\n".join([f"{source}: {pointer}: {message}" for pointer, message in self.problems])


def parse(kind: type[M], value: Any) -> M:
    """Parsed JSON as the type that it should have.

    Raises:
        Invalid: it has not.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise Invalid(_problems(error)) from None


def contradiction(*problems: Problem) -> PydanticCustomError:
    """What a validator raises where fields of its object, each right by itself, do not fit one another.

    Args:
        problems: pointers count from the object.
    """
    words = "; ".join(f"{pointer} {message}".strip() for pointer, message in problems)
    return PydanticCustomError("contradiction", "{words}", {"problems": problems, "words": words})


MESSAGES = {
    "missing": "{name!r} is a required property",
    "extra_forbidden": "{name!r} was unexpected",
    **dict.fromkeys(("model_type", "dict_type"), "{value} is not of type 'object'"),
    **dict.fromkeys(("tuple_type", "list_type"), "{value} is not of type 'array'"),
    **dict.fromkeys(("int_type", "int_from_float"), "{value} is not of type 'integer'"),
    "float_type": "{value} is not of type 'number'",
    "string_type": "{value} is not of type 'string'",
    "bool_type": "{value} is not of type 'boolean'",
    "none_required": "{value} is not of type 'null'",
    "greater_than": "{value} is less than or equal to the minimum of {gt:g}",
    "greater_than_equal": "{value} is less than the minimum of {ge:g}",
    "less_than": "{value} is greater than or equal to the maximum of {lt:g}",
    "less_than_equal": "{value} is greater than the maximum of {le:g}",
    "literal_error": "{value} is not one of {expected}",
    "string_pattern_mismatch": "{value} does not match {pattern!r}",
    "string_too_short": "{value} is too short",
    "string_too_long": "{value} is too long",
    "too_short": "{value} has fewer than {min_length} items",
    "too_long": "{value} has more than {max_length} items",
}
"""Words by pydantic's type of an error, where its own are longer than they need be or do not tell the value."""
OF_THE_PARENT = ("missing", "extra_forbidden")
"""Types of errors that are about a name; their pointer is that of the object."""


def _problems(error: ValidationError) -> list[Problem]:
    if (count := error.error_count()) > LISTED:
        return [("/", f"has {count:,} problems")]
    details = error.errors(include_url=False)
    return [
        problem for detail in sorted(details, key=lambda d: list(map(str, d["loc"]))) for problem in _in_words(detail)
    ]


def _in_words(detail: ErrorDetails) -> Iterator[Problem]:
    path = [str(part) for part in detail["loc"] if not str(part).startswith(TAG)]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "contradiction":
        yield from ((pointer_to(path) + pointer, message) for pointer, message in context["problems"])
        return
    if kind == "too_short" and len(detail["input"]) >= context["min_length"]:
        return  # pydantic counts the items before the first that is wrong, which has a problem of its own
    name = path.pop() if kind in OF_THE_PARENT else ""
    message = detail["msg"]
    if kind in MESSAGES:
        message = MESSAGES[kind].format(name=_cut(name), value=reprlib.repr(detail["input"]), **context)
    yield pointer_to(path) or "/", message


def _cut(name: str) -> str:
    """A name, cut where it is longer than any that this package knows."""
    return name if len(name) <= 80 else name[:80] + "..."


def pointer_to(path: list[str]) -> str:
    """JSON pointer (RFC 6901) to what is reached by these names and numbers."""
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)


class _Generator(GenerateJsonSchema):
    """Without titles that repeat the names of fields."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        return False


def json_schema(kind: type[BaseModel]) -> str:
    """JSON schema (2020-12) of a type, as it stands in a file."""
    content = {"$schema": _Generator.schema_dialect, **kind.model_json_schema(schema_generator=_Generator)}
    return json.dumps(content, indent=2) + "\n"
