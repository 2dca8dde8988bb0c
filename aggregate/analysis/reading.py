"""Reading result files. Whoever wrote them may be a stranger: nothing in a file is believed before it is checked.

A file is read in one straight line: bytes, JSON, this version's words, this program's types, contradictions.
"""

import contextlib
import gc
import hashlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregate.analysis import contradictions
from aggregate.analysis.result import Result
from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.results import format
from shared_spec.results.measurements import Latency, Training
from shared_spec.results.upgrade import OLDER_VERSIONS, upgrade

STDIN = "-"
STDIN_NAME = "standard input"
PATTERNS = ("*.json", "*.json.gz")
MAX_BYTES = 64 * 2**20
"""Of a file, unpacked. A full run on a fast GPU keeps some 200,000 samples: about 5 MB."""
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
class Loaded:
    """What some files hold, and why the others are left out."""

    results: list[Result]
    problems: list[Problem]


class _Refused(Exception):
    """A file that is no valid result, with all that is wrong with it."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self.problems = list(problems)


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
    """Read result files; a folder stands for the *.json and *.json.gz files in it, "-" for standard input.

    Every problem of every file is reported; the files without any are returned all the same. Never raises for
    what a file holds.
    """
    results: list[Result] = []
    problems: list[Problem] = []
    first_of: dict[object, Path] = {}
    for path in dict.fromkeys(_expand(paths, problems)):
        try:
            result = _read(path)
            _refuse_twin(result, path, first_of)
            results.append(result)
        except _Refused as refused:
            problems += _listed(path, refused.problems)
    return Loaded(results, [Problem(clean(p.file), clean(p.pointer), clean(p.message)) for p in problems])


def _expand(paths: Iterable[str | Path], problems: list[Problem]) -> Iterator[Path]:
    """The files behind the arguments; what stands for none becomes a problem."""
    for argument in paths:
        path = Path(argument)
        if str(argument) == STDIN:
            yield path
        elif os.path.isdir(path):  # unlike Path.is_dir, False where the system does not let us look
            # Hidden files are not results: a run that is under way keeps its own there.
            inside = sorted(f for p in PATTERNS for f in path.glob(p) if not f.name.startswith("."))
            if not inside:
                problems.append(Problem(str(argument), "", "is a folder without *.json files"))
            yield from inside
        elif any(c in str(argument) for c in "*?[") and not os.path.exists(path):
            problems.append(Problem(str(argument), "", "matches no file; `make bench` writes results into results/"))
        else:
            yield path


def _read(path: Path) -> Result:
    """The result in a file.

    Raises:
        _Refused: it is none, or not a valid one.
    """
    try:
        data = _bytes(path)
        content = _clean_all(files.loads(data.decode("utf-8")))
        result = format.parse(_upgraded(content))
        if problems := list(contradictions.problems(result)):
            raise _Refused(problems)
        return Result(_name(path), result, hashlib.sha256(data).hexdigest())
    except schema.Invalid as invalid:
        raise _Refused(invalid.problems) from None
    except OSError as error:
        message = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        message = "is not UTF-8 text, so it is not a result file"
    except UserError as error:
        message = str(error)
    except RecursionError:
        message = "is nested too deeply for a result file"
    except ValueError as error:
        message = f"is not valid JSON ({error}); it may be truncated"
    raise _Refused([("", message)])


def _bytes(path: Path) -> bytes:
    """What a file or standard input holds, unpacked."""
    if str(path) != STDIN:
        return files.read_bytes(path, MAX_BYTES)
    if sys.stdin is None:
        raise UserError("was closed before anything was read")
    return files.read_stream(sys.stdin.buffer.read, MAX_BYTES)


def _name(path: Path) -> str:
    return STDIN_NAME if str(path) == STDIN else clean(path.name)


def _upgraded(content: Any) -> Any:
    """A result of an older version in the words of this one; what is no result as it is.

    Raises:
        _Refused: it is of a version that this program does not know.
    """
    if not isinstance(content, dict):
        return content
    content = upgrade(content)
    version = content.get("schema_version")
    if isinstance(version, str) and version != format.SCHEMA_VERSION:
        readable = " and ".join((*OLDER_VERSIONS, format.SCHEMA_VERSION))
        advice = f"this program reads {readable}; use the deit-bench that wrote it"
        raise _Refused([("/schema_version", f"is {version!r:.40}, and {advice}")])
    return content


def _refuse_twin(result: Result, path: Path, first_of: dict[object, Path]) -> None:
    """Remember what a result is recognised by.

    Raises:
        _Refused: an earlier one was the same run, or holds its samples.
    """
    run_id, samples = result.content.run_id, _samples(result)
    for key, pointer, words in ((run_id, "/run_id", "is the run of"), (samples, "/phases", "hold the very samples of")):
        if (first := first_of.setdefault(key, path)) != path:
            raise _Refused([(pointer, f"{words} {first.name} again; only that one is compared")])


def _samples(result: Result) -> object:
    """What tells a run's samples from those of any other: two runs never time the same to the last digit."""
    windows = [measured.window_blocks for measured in result.measured(Training)]
    latencies = [measured.host_to_host_seconds for measured in result.measured(Latency)]
    return hash((*windows, *latencies)) if windows or latencies else object()


def _listed(path: Path, problems: list[tuple[str, str]]) -> Iterator[Problem]:
    """The problems of a file, those beyond MAX_PROBLEMS only counted."""
    name = STDIN_NAME if str(path) == STDIN else str(path)
    for pointer, message in problems[:MAX_PROBLEMS]:
        yield Problem(name, pointer, message)
    if (more := len(problems) - MAX_PROBLEMS) > 0:
        yield Problem(name, "", f"has {more:,} more problems")


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
    return [_clean_all(item) for item in value] if isinstance(value, list) and not _numbers(value) else value


def _numbers(array: list[Any]) -> bool:
    """Whether it is of numbers alone, as most of what a result holds is: nothing to look at one by one."""
    return all(type(item) in (float, int) for item in array)
