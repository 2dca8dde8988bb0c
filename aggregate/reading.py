"""Reading result files. Whoever wrote them may be a stranger: nothing in a file is believed before it is checked."""

import contextlib
import functools
import hashlib
import json
import math
import os
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_spec import jsonio, results
from shared_spec.errors import UserError
from shared_spec.spec import Spec, parse_spec

MAX_BYTES = 64 * 2**20
"""A full run on a fast GPU keeps some 200,000 samples: about 5 MB."""
MAX_PROBLEMS = 100
"""Problems listed of one file; the rest are counted."""
CLOCK_TOLERANCE = 1.01
"""What a phase timed may exceed the life of its process by this factor: the two are read from different clocks."""

MAX_WATTS = 1e5
"""A hundred kilowatts: beyond any machine with one device, so that joules in the wrong unit are found out."""


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
    safe = (
        c if c.isspace() or not unicodedata.category(c).startswith("C") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return " ".join("".join(safe).split())


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _clean_all(item) for key, item in value.items()}
    return [_clean_all(item) for item in value] if isinstance(value, list) else value


def load(paths: Iterable[str | Path]) -> Loaded:
    """Read result files; a folder stands for the *.json files in it.

    Every problem of every file is reported; the files without any are returned all the same. Never raises for
    what a file holds.
    """
    found: list[Result] = []
    problems: list[Problem] = []
    first_of: dict[str, Path] = {}
    for path in list(dict.fromkeys(_expand(paths, problems))):
        result, wrong = _load_one(path)
        problems += wrong
        if result and (twin := first_of.setdefault(result.content["run_id"], path)) != path:
            message = f"is the run of {twin.name} again; only that one is compared"
            problems.append(Problem(str(path), "/run_id", message))
        elif result:
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
        content = jsonio.loads(data.decode("utf-8"))
        if isinstance(content, dict):
            content = results.upgrade(content)
        wrong = _wrong_values(content)
        if not wrong:
            spec, _ = _parsed(json.dumps(content["spec"]["content"]))
            if spec is None:
                raise AssertionError("a spec without problems has been parsed")
            return Result(clean(path.name), _clean_all(content), spec, hashlib.sha256(data).hexdigest()), []
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
    if isinstance(version, str) and version != results.SCHEMA_VERSION:
        readable = " and ".join((*results.OLDER_VERSIONS, results.SCHEMA_VERSION))
        said = f"is {version!r:.40}, and this program reads {readable}; use the deit-bench that wrote it"
        return [("/schema_version", said)]
    if wrong := results.problems(content) or list(_too_large(content)):
        return wrong
    return [*_spec_problems(content), *_contradictions(content)]


def _too_large(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Integers that no float can hold: the schema bounds most fields but not all, and arithmetic would overflow."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _too_large(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _too_large(item, f"{pointer}/{i}")
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        yield pointer, "is a number too large for a float"


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[Spec | None, tuple[tuple[str, str], ...]]:
    """The spec in a JSON text and what is wrong with it; many results are of the same one."""
    content = jsonio.loads(text)
    wrong = tuple((pointer.rstrip("/"), message) for pointer, message in jsonio.problems(content, "spec.schema.json"))
    if wrong:
        return None, wrong
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


def _contradictions(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of the outcomes that do not fit one another or the head of the result."""
    first: dict[str, Any] | None = None
    seen = set()
    for i, outcome in enumerate(content["phases"]):
        here, backend = f"/phases/{i}", outcome["backend"]
        if (key := (outcome["phase"], outcome["repeat"])) in seen:
            yield here, f"is repeat {key[1]} of {key[0]} for the second time"
        seen.add(key)
        if backend:
            first = first or backend
            yield from _backend_problems(content, first, backend, f"{here}/backend")
        if outcome["status"] == "ok":
            yield from _measurement_problems(outcome, here)
            yield from _batch_problems(outcome, content["spec"]["content"], f"{here}/measurements")
            if outcome["phase"] in CONTRADICTIONS:
                yield from CONTRADICTIONS[outcome["phase"]](outcome["measurements"], f"{here}/measurements")


def _backend_problems(
    content: dict[str, Any], first: dict[str, Any], backend: dict[str, Any], here: str
) -> Iterator[tuple[str, str]]:
    if backend["engine"] != content["engine"]:
        yield f"{here}/engine", f"is {backend['engine']!r}, but /engine is {content['engine']!r}"
    if (requested := backend["precision"]["requested"]) != content["precision"]:
        yield f"{here}/precision/requested", f"is {requested!r}, but /precision is {content['precision']!r}"
    for name in ("framework", "framework_version", "device"):
        if backend[name] != first[name]:
            yield f"{here}/{name}", "differs from that of an earlier phase: a result is one run on one machine"


def _measurement_problems(outcome: dict[str, Any], here: str) -> Iterator[tuple[str, str]]:
    phase, measured = outcome["phase"], outcome["measurements"]
    if (timed := timed_seconds(phase, measured)) > outcome["seconds"] * CLOCK_TOLERANCE and not measured.get("resumed"):
        yield f"{here}/seconds", f"is {outcome['seconds']:g}, but the times measured within add up to {timed:g}"
    if phase == "training" and (wait := measured["window_host_wait_seconds"]) > CLOCK_TOLERANCE * (
        window := _total(measured["window_blocks"])
    ):
        yield f"{here}/measurements/window_host_wait_seconds", f"is {wait:g}, but the whole window took {window:g}"
    if phase == "conformance" and measured["passed"] != all(check["passed"] for check in measured["checks"]):
        yield f"{here}/measurements/passed", f"is {measured['passed']}, which is not what the checks say"


def _batch_problems(outcome: dict[str, Any], spec: Any, here: str) -> Iterator[tuple[str, str]]:
    measured = outcome["measurements"]
    if outcome["phase"] in ("training", "convergence"):
        with contextlib.suppress(KeyError, TypeError):  # a spec that is wrong has been reported
            if measured["batch_size"] != (specified := spec["training"]["batch_size"]):
                yield f"{here}/batch_size", f"is {measured['batch_size']}, but the spec says {specified}"
            if measured.get("target_top1") not in (None, target := spec["training"]["target_top1"]):
                yield f"{here}/target_top1", f"is {measured['target_top1']}, but the spec says {target}"
            if len(measured.get("epochs", ())) > (epochs := spec["training"]["epochs"]):
                yield f"{here}/epochs", f"are {len(measured['epochs'])}, but the spec says {epochs}"
    if outcome["phase"] == "inference":
        sizes = [size["batch_size"] for size in measured["sizes"]]
        if len(set(sizes)) < len(sizes):
            yield f"{here}/sizes", "has a batch size twice"


def _training_problems(measured: dict[str, Any], here: str) -> Iterator[tuple[str, str]]:
    yield from _energy_problems(measured["energy"], _total(measured["window_blocks"]), f"{here}/energy")
    yield from _energy_problems(measured["idle"], measured["idle"]["seconds"], f"{here}/idle")


def _energy_problems(energy: dict[str, Any], seconds: float, here: str) -> Iterator[tuple[str, str]]:
    if (energy["joules"] is None) == (energy["reason"] is None):
        yield here, "must have either joules or the reason why there are none"
    if energy["joules"] is not None and (watts := energy["joules"] / seconds) > MAX_WATTS:
        yield f"{here}/joules", f"is {energy['joules']:g} in {seconds:g} s: {watts:.3g} W, which no such machine takes"


def _max_batch_problems(measured: dict[str, Any], here: str) -> Iterator[tuple[str, str]]:
    fitting = [t["batch_size"] for t in measured["tries"] if t["outcome"] == "fits"]
    if measured["batch_size"] != max(fitting, default=None):
        yield f"{here}/batch_size", f"is {measured['batch_size']}, which is not the largest try that fits"
    if len({t["batch_size"] for t in measured["tries"]}) < len(measured["tries"]):
        yield f"{here}/tries", "has a batch size twice"
    for i, tried in enumerate(measured["tries"]):
        if (tried["outcome"] == "fits") == (tried["measurements"] is None):
            yield f"{here}/tries/{i}/measurements", f"do not go with the outcome {tried['outcome']!r}"


CLOCKS = ("seconds", "evaluation_seconds", "checkpoint_seconds")
"""Clocks of a full training that its epochs keep too."""


def _convergence_problems(measured: dict[str, Any], here: str) -> Iterator[tuple[str, str]]:
    epochs = measured["epochs"]
    if [epoch["epoch"] for epoch in epochs] != list(range(1, len(epochs) + 1)):
        yield f"{here}/epochs", "are not numbered 1, 2, 3 ..."
        return
    for name in CLOCKS:
        times = [epoch[name] for epoch in epochs]
        if times != sorted(times):
            yield f"{here}/epochs", f"have {name} that run backwards"
        if measured[name] != times[-1]:
            yield f"{here}/{name}", f"is {measured[name]:g}, but the last epoch says {times[-1]:g}"
    joules = [epoch["joules"] for epoch in epochs if epoch["joules"] is not None]
    if joules != sorted(joules):
        yield f"{here}/epochs", "have joules that run backwards"
    for name in ("evaluation_seconds", "checkpoint_seconds", "first_step_seconds", "host_wait_seconds"):
        if measured[name] > CLOCK_TOLERANCE * measured["seconds"]:
            yield f"{here}/{name}", f"is {measured[name]:g}, but the whole training took {measured['seconds']:g}"
    yield from _energy_problems(measured["energy"], measured["seconds"], f"{here}/energy")
    yield from _target_problems(measured, here)


def _target_problems(measured: dict[str, Any], here: str) -> Iterator[tuple[str, str]]:
    """Whether the target was reached when, and only when, the accuracies say so."""
    reached = [epoch for epoch in measured["epochs"] if epoch["top1"] >= measured["target_top1"]]
    number, seconds = (reached[0]["epoch"], reached[0]["seconds"]) if reached else (None, None)
    if measured["epochs_to_target"] != number:
        yield f"{here}/epochs_to_target", f"is {measured['epochs_to_target']}, but the accuracies say {number}"
    if measured["seconds_to_target"] != seconds:
        yield f"{here}/seconds_to_target", f"is {measured['seconds_to_target']}, but the epochs say {seconds}"


CONTRADICTIONS: dict[str, Callable[[dict[str, Any], str], Iterator[tuple[str, str]]]] = {
    "training": _training_problems,
    "max_batch": _max_batch_problems,
    "convergence": _convergence_problems,
}


def _total(blocks: list[list[float]]) -> float:
    return math.fsum(seconds for _, seconds in blocks)


def timed_seconds(phase: str, measured: dict[str, Any]) -> float:
    """Seconds of a phase that are in its measurements; they cannot exceed the life of its process."""
    times: list[float] = []
    blocks: list[list[list[float]]] = []
    if phase == "ceiling":
        blocks = [size["blocks"] for size in measured["sizes"]]
    elif phase == "inference":
        times = [size["first_inference_seconds"] for size in measured["sizes"]]
        blocks = [size["window_blocks"] for size in measured["sizes"]]
    elif phase == "training":
        times = [measured["first_step_seconds"], *measured["step_seconds"]]
        blocks = [measured["warmup_blocks"], measured["window_blocks"]]
    elif phase == "latency":
        times = [
            measured["first_inference_seconds"],
            *measured["host_to_host_seconds"],
            *measured["device_only_seconds"],
        ]
        blocks = [measured["warmup_blocks"]]
    elif phase == "convergence":
        times = [measured["seconds"]]
    return math.fsum([*times, *map(_total, blocks)])
