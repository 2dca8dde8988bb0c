"""What a run would find on this machine: looked at in seconds, measuring nothing, with the command that mends each fault."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared_spec.data import cifar100
from shared_spec.data.synthetic import SYNTHETIC
from shared_spec.errors import UserError
from shared_spec.machine import facts
from shared_spec.measure.clock import utc_now
from shared_spec.run import awake, fitness
from shared_spec.run.plan import Plan
from shared_spec.run.request import Request
from shared_spec.run.screen import duration

State = Literal["ok", "note", "null", "bad"]
"""As it should be; worth knowing; a figure will be null; a run would fail or mislead."""

PYTHONS = ((3, 11), (3, 13))
"""The first and the last Python that every framework here has wheels for."""
DISK_BYTES = 2 << 30
"""What a run may need in its results folder: checkpoints of a full training, most of all."""
LITTLE_MEMORY = 4 << 30
"""Bytes free below which a training at batch 32 may not fit."""
BACKEND_SECONDS = 60.0
COMMAND = re.compile(r"`((?:sudo|echo|pip|export|make|nvidia-smi|powerprofilesctl|wsl)\b[^`]*)`")


@dataclass(frozen=True)
class Finding:
    """What a look at one thing has found.

    Attributes:
        mend: the command that mends it, where there is one.
    """

    check: str
    state: State
    text: str
    mend: str | None = None


@dataclass(frozen=True)
class Seen:
    """What was looked at.

    Attributes:
        backend: what the framework says of itself, or in a sentence why it does not start.
        data: where CIFAR-100 lies, or None where it would be downloaded; a UserError where it is not what it should be.
    """

    request: Request
    python: tuple[int, int]
    environment: dict[str, Any]
    state: dict[str, Any]
    backend: dict[str, Any] | str
    data: Path | str | UserError | None
    free_bytes: int | None
    stays_awake: bool


def look(request: Request) -> Seen:
    """Look at this machine as a run of `request` would find it."""
    setting = request.setting
    pool = ThreadPoolExecutor(1)
    described = pool.submit(described_apart, request)  # frameworks take seconds to start; look at the rest meanwhile
    try:
        data: Path | str | UserError | None = cifar100.at_hand(request.data)
    except UserError as error:
        data = error
    environment, state = facts.collect(setting.device), facts.state(setting.device, utc_now())
    return Seen(
        request, sys.version_info[:2], environment, state, described.result(), data, _free_bytes(request.out),
        awake.works(),
    )  # fmt: skip


def described_apart(request: Request) -> dict[str, Any] | str:
    """What the framework says of itself, in a process of its own; a sentence where it does not start."""
    setting = request.setting
    words = ["--device", setting.device, "--engine", setting.engine, "--precision", setting.precision]
    try:
        done = subprocess.run(
            [sys.executable, "-m", request.platform.package, "info", *words],
            capture_output=True, text=True, errors="replace", timeout=BACKEND_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            backend: dict[str, Any] = json.loads(done.stdout)["backend"]
            return backend
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return f"it does not start within {BACKEND_SECONDS:.0f} s ({type(error).__name__})"
    return (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1].removeprefix("Error: ")


def _free_bytes(folder: Path) -> int | None:
    """Bytes free where the results go, whether that folder is there yet or not."""
    try:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(there).free
    except OSError:
        return None


def examine(seen: Seen) -> list[Finding]:
    """All findings, in the order in which a person would ask."""
    looks = (_python, _framework, _cores, _precision, _memory, _conditions, _meters, _disk, _data, _sleep, _time)
    return [finding for one in looks for finding in one(seen)]


def _gib(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"


def _python(seen: Seen) -> Iterator[Finding]:
    version = ".".join(map(str, seen.python))
    if not PYTHONS[0] <= seen.python <= PYTHONS[1]:
        yield Finding(
            "Python", "bad", f"{version}: the frameworks have wheels for 3.11 to 3.13", "make PYTHON=python3.12"
        )
    elif seen.environment.get("rosetta"):
        text = f"{version}, translated by Rosetta, and so many times slower: install a native arm64 Python"
        yield Finding("Python", "bad", text)
    else:
        yield Finding("Python", "ok", f"{version}, {seen.environment.get('machine')}")


def _framework(seen: Seen) -> Iterator[Finding]:
    backend, platform = seen.backend, seen.request.platform
    if isinstance(backend, str):
        yield Finding("framework", "bad", backend, f"make setup-{platform.make_target}")
        return
    yield Finding(
        "framework", "ok", f"{backend['framework']} {backend['framework_version']}, {backend['compile_mode']}"
    )
    yield Finding("device", "ok", f"{backend['device']['name']} ({backend['device']['kind']})")
    driver, cuda = seen.environment.get("gpu_driver"), seen.environment.get("gpu_driver_cuda")
    if driver:
        yield Finding("driver", "ok", f"{driver}, of CUDA {cuda}")
    for sentence in fitness.cautions(platform, seen.request.setting.device, seen.environment):
        yield Finding("system", "note", sentence)


def _cores(seen: Seen) -> Iterator[Finding]:
    fast, slow = (seen.environment.get(f"cpu_{kind}_cores") for kind in ("performance", "efficiency"))
    kinds = f"{fast} performance and {slow} efficiency cores" if fast and slow else "cores of one kind"
    setting = seen.request.setting
    if setting.device != "cpu":
        yield Finding("processor", "ok", f"{seen.environment.get('cpu_name')}, {kinds}")
        return
    try:
        yield Finding(
            "processor",
            "ok",
            f"{kinds}; {setting.compute_threads(seen.request.platform.world()).count} threads would compute",
        )
    except UserError as error:
        yield Finding("processor", "bad", str(error))


def _precision(seen: Seen) -> Iterator[Finding]:
    setting = seen.request.setting
    if (reason := fitness.without_bf16(seen.request.platform, setting.device)) is not None:
        state: State = "bad" if setting.precision == "bf16" else "note"
        yield Finding("precision", state, f"bf16 would be emulated: {reason}; measure in fp32")
    elif isinstance(seen.backend, dict):
        precision = seen.backend["precision"]
        yield Finding("precision", "ok", f"{precision['requested']}, computed as {precision['effective']}")


def _memory(seen: Seen) -> Iterator[Finding]:
    total, free = seen.environment.get("memory_bytes"), seen.state.get("memory_available_bytes")
    if (limit := seen.environment.get("memory_limit_bytes")) is not None and limit < (total or 0):
        yield Finding("memory", "note", f"{_gib(limit)} by the limit of a control group, of {_gib(total)}")
    else:
        yield _free_memory("memory", total, free)
    if seen.environment.get("gpu_memory_bytes"):
        yield _free_memory("GPU memory", seen.environment["gpu_memory_bytes"], seen.state.get("gpu_memory_free_bytes"))
    if seen.environment.get("gpu_display_active"):
        yield Finding("display", "note", "one hangs on this GPU and takes of its memory and time: close what draws")


def _free_memory(check: str, total: int | None, free: int | None) -> Finding:
    text = f"{_gib(free)} free of {_gib(total)}"
    if free is not None and free < LITTLE_MEMORY:
        return Finding(check, "note", f"{text}: close other programs, or training at batch 32 may not fit")
    return Finding(check, "ok", text)


MENDS = {
    "set to save power": {"Darwin": "sudo pmset -a lowpowermode 0", "Linux": "powerprofilesctl set performance"},
}
"""Commands, by words of a warning of the machine's state and by system."""
SLOW_PREFERENCES = ("power", "balance_power")


def _conditions(seen: Seen) -> Iterator[Finding]:
    everything = {**seen.environment, **seen.state}
    sentences = [text for text in facts.warnings(everything) if "Rosetta" not in text]
    for text in sentences:
        mend = next(
            (by_system.get(str(everything.get("system"))) for words, by_system in MENDS.items() if words in text), None
        )
        yield Finding("state", "note", text, mend)
    if (preference := everything.get("cpu_energy_preference")) in SLOW_PREFERENCES:
        text = f"the processor is told to prefer {preference} to speed"
        yield Finding("power mode", "note", text, MENDS["set to save power"]["Linux"])
    if (pressure := everything.get("thermal_pressure")) not in (None, "nominal"):
        yield Finding("state", "note", f"macOS reports {pressure} thermal pressure: let the machine cool")
    if not sentences:
        load, count = everything.get("load_average_1min"), everything.get("cpu_logical_cores")
        idle = "" if load is None else f", load average {load:.1f} on {count} processors"
        yield Finding("state", "ok", f"nothing disturbs{idle}")


def _meters(seen: Seen) -> Iterator[Finding]:
    lacks = fitness.lacks(seen.request.setting, seen.environment, seen.state)
    for lack in lacks:
        command = COMMAND.search(lack.reason)
        yield Finding(lack.figure, "null", lack.reason, command.group(1) if command else None)
    if not any(lack.figure == "energy and power" for lack in lacks):
        yield Finding("energy", "ok", "a meter answers, and this user may read it")


def _disk(seen: Seen) -> Iterator[Finding]:
    little = seen.free_bytes is not None and seen.free_bytes < DISK_BYTES
    text = f"{_gib(seen.free_bytes)} free for {seen.request.out}"
    yield Finding("disk", "note" if little else "ok", f"{text}: a full training needs 2 GiB" if little else text)


def _data(seen: Seen) -> Iterator[Finding]:
    if isinstance(seen.data, UserError):
        yield Finding("data", "bad", str(seen.data))
    elif seen.data is None:
        yield Finding("data", "note", "CIFAR-100 will be downloaded (169 MB); DATA= takes a copy that is at hand")
    elif seen.data == SYNTHETIC:
        yield Finding("data", "null", "the synthetic stand-in, as asked: no accuracy will be measured")
    else:
        yield Finding("data", "ok", f"CIFAR-100 in {seen.data}")


def _sleep(seen: Seen) -> Iterator[Finding]:
    if seen.stays_awake:
        yield Finding("sleep", "ok", f"{awake.tool()} keeps the machine awake while a run lasts")
    else:
        yield Finding("sleep", "note", "nothing here keeps the machine awake: see that it does not go to sleep")


def _time(seen: Seen) -> Iterator[Finding]:
    profile = seen.request.setting.profile_name
    seconds = Plan(seen.request).remaining
    yield Finding(
        "time", "ok", f"{profile} takes about {duration(seconds)}, as far as one can tell before the ceiling phase"
    )


MARKS = {"ok": "ok  ", "note": "note", "null": "null", "bad": "BAD "}


def told(findings: list[Finding]) -> str:
    """The findings as lines; below each fault the command that mends it."""
    lines = []
    for finding in findings:
        text = COMMAND.sub("the command below", finding.text) if finding.mend else finding.text
        lines.append(f"{MARKS[finding.state]}  {finding.check}: {text}")
        if finding.mend:
            lines.append(f"          $ {finding.mend}")
    return "\n".join(lines)
