"""Reading result files. Whoever wrote them may be a stranger: nothing in a file is believed before it is checked."""

import contextlib
import functools
import gc
import hashlib
import json
import os
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregate import contradictions
from shared_spec import files as shared_files
from shared_spec.errors import UserError
from shared_spec.results import format
from shared_spec.results.upgrade import OLDER_VERSIONS, upgrade
from shared_spec.workload.spec import Spec, parse_spec

MAX_BYTES = 64 * 2**20
"""A full run on a fast GPU keeps some 200,000 samples: about 5 MB."""
MAX_PROBLEMS = 100
"""Problems listed of one file; the rest are counted."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        file: the file as the user named it.
        pointer: JSON pointer to the value; empty where the file as a whole is meant.
        message: what is wrong there.
    """

    file: str
    pointer: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.pointer, self.message) if part)


@dataclass(frozen=True)
class Result:
    """A valid result.

    Attributes:
        file: name of its file, without the folder.
        content: as results.schema.json describes; texts are on one line and free of control characters.
        spec: the workload it says it measured.
        sha256: of the file's bytes; a report says by it which file it is made from.
    """

    file: str
    content: dict[str, Any]
    spec: Spec
    sha256: str = ""

    def outcomes(self, phase: str) -> list[dict[str, Any]]:
        """The outcomes of a phase, one per repeat, failed ones included."""
        return [outcome for outcome in self.content["phases"] if outcome["phase"] == phase]

    @property
    def backend(self) -> dict[str, Any] | None:
        """What the framework said of itself; None where no phase came so far."""
        return next((p["backend"] for p in self.content["phases"] if p["backend"]), None)


@dataclass(frozen=True)
class Loaded:
    results: list[Result]
    problems: list[Problem]


def clean(text: str) -> str:
    """`text` on one line, with everything that could steer a terminal or break an encoding made visible or dropped.

    Control, format (also bidirectional), surrogate and private characters become U+FFFD; white space is collapsed.
    """
    if text.isprintable() and " ".join(text.split()) == text:
        return text  # nearly all are
    safe = (
        c if c.isspace() or not unicodedata.category(c).startswith("C") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return " ".join("".join(safe).split())


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _clean_all(item) for key, item in value.items()}
    return [_clean_all(item) for item in value] if isinstance(value, list) and not _floats(value) else value


def _floats(array: list[Any]) -> bool:
    """Whether it is of floats alone, as most of what a result holds is: nothing to look at one by one."""
    return all(type(item) is float for item in array)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Parsed JSON has no cycles, and looking for some among millions of numbers takes longer than reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_garbage_collection()
def load(paths: Iterable[str | Path]) -> Loaded:
    """Read result files; a folder stands for the *.json files in it.

    Every problem of every file is reported; the files without any are returned all the same. Never raises for
    what a file holds.
    """
    found: list[Result] = []
    problems: list[Problem] = []
    first_of: dict[object, Path] = {}
    for path in list(dict.fromkeys(_expand(paths, problems))):
        result, wrong = _load_one(path)
        problems += wrong
        if not result:
            continue
        twins = [
            first_of.setdefault(key, path) for key in (result.content["run_id"], contradictions.samples(result.content))
        ]
        again = {"/run_id": "is the run of {}", "/phases": "hold the very samples of {}"}
        for twin, (pointer, words) in zip(twins, again.items(), strict=True):
            if twin != path:
                message = f"{words.format(twin.name)} again; only that one is compared"
                problems.append(Problem(str(path), pointer, message))
                break
        else:
            found.append(result)
    return Loaded(found, [Problem(clean(p.file), clean(p.pointer), clean(p.message)) for p in problems])


def _expand(paths: Iterable[str | Path], problems: list[Problem]) -> Iterator[Path]:
    """The files behind the arguments; what stands for none becomes a problem."""
    for argument in paths:
        path = Path(argument)
        if os.path.isdir(path):  # unlike Path.is_dir, False where the system does not let us look
            # Hidden files are not results: a run that is under way keeps its own there.
            files = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
            if not files:
                problems.append(Problem(str(argument), "", "is a folder without *.json files"))
            yield from files
        elif any(c in str(argument) for c in "*?[") and not os.path.exists(path):
            problems.append(Problem(str(argument), "", "matches no file; `make bench` writes results into results/"))
        else:
            yield path


def _load_one(path: Path) -> tuple[Result | None, list[Problem]]:
    try:
        data = _read(path)
        content = _clean_all(shared_files.loads(data.decode("utf-8")))
        if isinstance(content, dict):
            content = upgrade(content)
        wrong = _wrong_values(content)
        if not wrong:
            spec, _ = _parsed(json.dumps(content["spec"]["content"]))
            if spec is None:
                raise AssertionError("a spec without problems has been parsed")
            return Result(clean(path.name), content, spec, hashlib.sha256(data).hexdigest()), []
    except OSError as error:
        wrong = [("", f"cannot be read ({error.strerror})")]
    except UnicodeDecodeError:
        wrong = [("", "is not UTF-8 text, so it is not a result file")]
    except UserError as error:
        wrong = [("", str(error))]
    except RecursionError:
        wrong = [("", "is nested too deeply for a result file")]
    except ValueError as error:
        wrong = [("", f"is not valid JSON ({error}); it may be truncated")]
    if (more := len(wrong) - MAX_PROBLEMS) > 0:
        wrong = [*wrong[:MAX_PROBLEMS], ("", f"has {more:,} more problems")]
    return None, [Problem(str(path), pointer, message) for pointer, message in wrong]


def _read(path: Path) -> bytes:
    """The content of a file, opened only if it is one and not too large.

    Raises:
        UserError: it is no regular file, or larger than MAX_BYTES.
        OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError("is not a regular file")
    if status.st_size <= MAX_BYTES:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data
    raise UserError(f"is larger than the {MAX_BYTES // 2**20} MiB that a result file may have")


def _wrong_values(content: Any) -> list[tuple[str, str]]:
    """All that is wrong with parsed JSON, as (JSON pointer, what)."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, str) and version != format.SCHEMA_VERSION:
        readable = " and ".join((*OLDER_VERSIONS, format.SCHEMA_VERSION))
        said = f"is {version!r:.40}, and this program reads {readable}; use the deit-bench that wrote it"
        return [("/schema_version", said)]
    if wrong := format.problems(content) or list(_too_large(content)):
        return wrong
    spec, _ = _parsed(json.dumps(content["spec"]["content"]))
    return [*_spec_problems(content), *contradictions.problems(content, spec)]


def _too_large(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Integers that no float can hold: the schema bounds most fields but not all, and arithmetic would overflow."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _too_large(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list) and not _floats(value):
        for i, item in enumerate(value):
            yield from _too_large(item, f"{pointer}/{i}")
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        yield pointer, "is a number too large for a float"


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[Spec | None, tuple[tuple[str, str], ...]]:
    """The spec in a JSON text and what is wrong with it; many results are of the same one."""
    content = shared_files.loads(text)
    try:
        return parse_spec(content, "the spec"), ()
    except UserError as error:
        return None, (("", str(error)),)


def _spec_problems(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether the spec inside is a valid one, and the one that the result says."""
    said = content["spec"]
    spec, wrong = _parsed(json.dumps(said["content"]))
    if spec is None:
        yield from ((f"/spec/content{pointer}", message) for pointer, message in wrong)
        return
    if said["fingerprint"] != spec.fingerprint:
        yield "/spec/fingerprint", f"is not that of /spec/content, which is {spec.fingerprint}"
    if said["name"] != spec.name:
        yield "/spec/name", f"is {said['name']!r}, but /spec/content/name is {spec.name!r}"
    if (seed := content["initial_params"]["seed"]) != spec.init.seed:
        yield "/initial_params/seed", f"is {seed}, but /spec/content/init/seed is {spec.init.seed}"
