"""This project's implementation against public ones of the same model: in turns, in one run, on one machine.

A duel is between processes of ours and of a peer's, each with its own framework. Two at a time take turns, ours first in
one round and last in the next, so that what the machine does meanwhile meets both; then come two new ones. A ratio is
how many times as fast ours is: the geometric mean over pairs of processes, with Student's interval between pairs. Both
train on the same batches from the same initial values, with the same environment variables; a peer whose numbers are not
ours is no peer, and there is no duel.
"""

import importlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import click
import numpy as np

from shared_spec import files
from shared_spec.backend import Batch, Handle
from shared_spec.data import synthetic
from shared_spec.data.batches import TrainingBatches
from shared_spec.errors import UserError
from shared_spec.machine import facts, provenance, topology
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Stepper
from shared_spec.platform import Platform
from shared_spec.results import privacy
from shared_spec.workload import params
from shared_spec.workload.spec import PRECISIONS, Spec, load_spec, parse_spec

TASKS = ("train", "latency")
OURS = "ours"
FORMAT = 2
"""Of the file a run writes; to be raised when a field changes its meaning. 2: turns by pair of processes."""
WARM_UP = {"train": 2, "latency": 10}
CHECKED_STEPS = 2
TOLERANCE = 0.02
"""Of losses and logits, as a share of the largest: far above what rounding to bfloat16 does, far below another model."""


class Contender(Protocol):
    """The part of Backend that a duel needs."""

    def load_params(self, params: Mapping[str, np.ndarray]) -> None: ...
    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch: ...
    def train_step(self, batch: Batch, lr: float) -> Handle: ...
    def infer(self, batch: Batch) -> Handle: ...
    def synchronize(self, *handles: Handle) -> None: ...
    def to_numpy(self, handle: Handle) -> np.ndarray: ...
    def describe(self) -> dict[str, Any]: ...


Build = Callable[[Spec, str, str], Contender]


@dataclass(frozen=True)
class Peer:
    """A public implementation.

    Attributes:
        build: (spec, device, precision) -> Contender; runs in the peer's own process and imports its framework there.
        script: that calls `serve` for this peer, where it is not the script that names the peer; `build` is not used then.
        python: folder of its virtual environment beside the script; empty for the package's own.
        devices: where it can run.
        tasks: what it can do.
        same_values: whether it computes the specified model from the specified initial values, and is held to it.
    """

    build: Build | None = None
    script: Path | None = None
    python: str = ""
    devices: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASKS
    same_values: bool = True


TIMM = Path(__file__).parents[2] / "benchmarks" / "timm_peer.py"


CAPS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""Environment under which PyTorch, oneDNN and MKL use no more than a smaller processor has."""


TIMM_SETTINGS = {"eager": TASKS, "compile": TASKS}
TIMM_ON_CPU = {**TIMM_SETTINGS, "compile-frozen": ("latency",)}
TIMM_ON_GPU = {**TIMM_SETTINGS, "reduce-overhead": TASKS, "graph": ("train",), "graph-channels-last": ("train",)}
"""Settings of benchmarks/timm_peer.py, and what each is for."""


def timm_peers(python: str, suffix: str = "", devices: tuple[str, ...] = ()) -> dict[str, Peer]:
    """timm in the virtual environment `python`, by a script of no platform's.

    In each setting that PyTorch recommends on a CPU, or where there are `devices` on a GPU.
    """
    settings = TIMM_ON_GPU if devices else TIMM_ON_CPU
    return {
        f"timm-{how}{suffix}": Peer(script=TIMM, python=python, devices=devices, tasks=tasks)
        for how, tasks in settings.items()
    }


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's distribution with 1 degree of freedom and up."""


def ratio(pairs: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float | None, float | None]:
    """How many times as fast the first of each two times is, and the 95 % interval; None where there is one pair.

    A pair of processes is one observation, the geometric mean over its turns: turns of one process say nothing about
    the next. Student's interval on logarithms over up to ten pairs.
    """
    logs = np.array([np.mean([np.log(peer / ours) for ours, peer in turns]) for turns in pairs])
    if len(logs) == 1:
        return float(np.exp(logs[0])), None, None
    half = STUDENT[len(logs) - 2] * logs.std(ddof=1) / math.sqrt(len(logs))
    centre = logs.mean()
    return float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half))


# --- In the process of a contender. ---


def _stepper(contender: Contender, spec: Spec, task: str, batch_size: int) -> tuple[Stepper, list[float]]:
    """What is timed, and a few numbers that tell whether the contender computes the specified model."""
    data = synthetic.dataset(spec)
    contender.load_params(params.initial(spec))
    if task == "latency":
        images = data.test_images[:batch_size]

        def infer() -> Handle:
            return contender.to_numpy(contender.infer(contender.to_device(images, None)))

        return Stepper(infer, lambda handle: None, spec.measuring, monotonic), infer()[0].tolist()
    batches = iter(TrainingBatches(spec, data.train_images, data.train_labels, batch_size, 0).prefetched())
    lr = spec.learning_rate(0, batch_size)

    def train() -> Handle:
        host = next(batches)
        return contender.train_step(contender.to_device(host.images, host.targets), lr)

    losses = [float(contender.to_numpy(train())[0]) for _ in range(CHECKED_STEPS)]
    return Stepper(train, contender.synchronize, spec.measuring, monotonic), losses


def serve(build: Build, job: dict[str, Any]) -> None:
    """Answer each number of steps on standard input with the seconds they took, a line of JSON each.

    Args:
        build: of the contender whose process this is.
        job: what --job has brought, setting.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever frameworks print goes with the errors

    def reply(value: Any) -> None:
        print(json.dumps(value), file=replies, flush=True)

    spec = parse_spec(job["spec"], "the job's spec")
    contender = build(spec, job["device"], job["precision"])
    start = monotonic()
    stepper, numbers = _stepper(contender, spec, job["task"], job["batch_size"])
    start_seconds = monotonic() - start
    seconds = stepper.block(WARM_UP[job["task"]]).step_seconds
    reply({
        "numbers": numbers, "step_seconds": seconds, "start_seconds": start_seconds, "describe": contender.describe()
    })  # fmt: skip
    for line in sys.stdin:
        reply(stepper.block(int(line)).step_seconds)


def _ours(platform: Platform, engine: str) -> Build:
    def build(spec: Spec, device: str, precision: str) -> Contender:
        module, _, name = platform.backend.partition(":")
        made: Contender = getattr(importlib.import_module(module), name)(spec, device, precision, engine)
        return made

    return build


# --- In the parent. ---


class _Process:
    """A contender's process; ready when it has been built and warmed up."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **env},
        )  # fmt: skip
        self.start: dict[str, Any] = self._read()

    def _read(self) -> Any:
        line = self._stream(self._process.stdout).readline()
        if not line:
            self._process.wait()
            words = Path(self._log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["none"]
            last = next((line for line in reversed(words) if re.match(r"[\w.]+(Error|Exception)\b", line)), words[-1])
            raise UserError(f"a contender's process ended; its words: {last.strip()}")
        return json.loads(line)

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None  # both are pipes
        return stream

    def seconds(self, steps: int) -> float:
        """Seconds a step of so many."""
        print(steps, file=self._stream(self._process.stdin), flush=True)
        return float(self._read())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@dataclass(frozen=True)
class Setting:
    """What a duel is about."""

    task: str
    precision: str
    batch_size: int
    device: str
    engine: str
    cap: str | None
    preload: tuple[str, ...] = ()


def _python(script: Path, peer: Peer) -> str:
    if not peer.python:
        return sys.executable
    python = script.parent / peer.python / "bin" / "python"
    if not python.exists():
        raise UserError(f"{python.relative_to(script.parent)}: is not there; `make peers-*` sets it up.")
    return str(python)


def _duel(
    platform: Platform, script: Path, name: str, peer: Peer, spec: Spec, setting: Setting, pairs: int, rounds: int
) -> Any:
    """One duel as the result file has it; times in seconds a step, by pair of processes and by turn."""
    env = platform.worker_env(setting.device, setting.engine, topology.threads()) | CAPS.get(setting.cap or "", {})
    env |= platform.phase_env("training" if setting.task == "train" else setting.task, setting.device)
    more = {"LD_PRELOAD": ":".join(setting.preload)} if setting.preload else {}
    job = json.dumps({**setting.__dict__, "spec": spec.to_dict()})
    sides = (
        ([sys.executable, str(script), "--contender", OURS, "--job", job], env),
        ([_python(script, peer), str(peer.script or script), "--contender", name, "--job", job], env | more),
    )
    outcomes = [_pair(name, peer, sides, spec.measuring.block_seconds, rounds) for _ in range(pairs)]
    centre, low, high = ratio([outcome["turns"] for outcome in outcomes])
    ours, theirs = outcomes[0]["starts"]
    return {
        "peer": name, "task": setting.task, "precision": setting.precision, "batch_size": setting.batch_size,
        "cap": setting.cap, "preload": [Path(library).name for library in setting.preload],
        "ratio": centre, "low": low, "high": high, "steps_a_turn": [outcome["steps"] for outcome in outcomes],
        "step_seconds": [outcome["turns"] for outcome in outcomes],
        "start_seconds": [[start["start_seconds"] for start in outcome["starts"]] for outcome in outcomes],
        "first_numbers": [start["numbers"][:CHECKED_STEPS] for start in (ours, theirs)],
        "ours": ours["describe"], "theirs": theirs["describe"], "env": env,
    }  # fmt: skip


def _pair(
    name: str, peer: Peer, sides: Sequence[tuple[list[str], Mapping[str, str]]], block_seconds: float, rounds: int
) -> dict[str, Any]:
    """A process of ours and one of the peer's, and their turns."""
    processes: list[_Process] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for command, env in sides:
                processes.append(_Process(command, env, Path(folder) / "log"))
            ours, theirs = processes
            if peer.same_values:
                _same_values(name, ours.start["numbers"], theirs.start["numbers"])
            slowest = max(process.start["step_seconds"] for process in processes)
            steps = max(1, round(block_seconds / slowest))
            turns = [_round(ours, theirs, steps, first=i % 2) for i in range(rounds)]
        finally:
            for process in processes:
                process.close()
    return {"steps": steps, "turns": turns, "starts": [ours.start, theirs.start]}


def _round(ours: _Process, theirs: _Process, steps: int, first: int) -> tuple[float, float]:
    if first == 0:
        return ours.seconds(steps), theirs.seconds(steps)
    their_seconds = theirs.seconds(steps)
    return ours.seconds(steps), their_seconds


def _same_values(name: str, ours: list[float], theirs: list[float]) -> None:
    a, b = np.array(ours), np.array(theirs)
    if a.shape != b.shape or np.abs(a - b).max() > TOLERANCE * np.abs(a).max():
        raise UserError(f"{name}: computes something else than ours: {b[:3].tolist()} where ours has {a[:3].tolist()}.")


def _read(path: Path) -> list[Any]:
    content: Any = files.read(path) if path.exists() else {"format": FORMAT, "duels": []}
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: holds duels in another format ({content.get('format')}); name another file by --out.")
    duels: list[Any] = content["duels"]
    return duels


def _write(path: Path, platform: Platform, spec: Spec, duels: list[Any]) -> None:
    machine = facts.collect()
    commit, clean = provenance.git_state()
    identity = ("system", "machine", "cpu_name", "cpu_flags", "cpu_physical_cores", "memory_bytes")
    content = {
        "format": FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
        "platform": platform.name,
        "spec_sha256": spec.fingerprint,
        "git_commit": commit,
        "git_clean": clean,
        "machine": {key: machine[key] for key in identity},
        "duels": duels,
    }
    files.write(path, privacy.scrub(content))


def table(duels: Sequence[Mapping[str, Any]]) -> str:
    """The duels as a Markdown table: images a second in training, milliseconds at latency."""
    lines = ["| task | precision | batch | peer | ours | peer's | ratio | 95 % interval |", "|" + " --- |" * 8]
    for duel in duels:
        ours, theirs = np.median(np.concatenate(duel["step_seconds"]), 0)
        size = duel["batch_size"]
        shown = (
            (f"{size / ours:.4g} images/s", f"{size / theirs:.4g} images/s")
            if duel["task"] == "train"
            else (f"{ours * 1e3:.4g} ms", f"{theirs * 1e3:.4g} ms")
        )
        peer = ", ".join([duel["theirs"]["framework_version"], *duel["preload"]])
        interval = "one pair of processes" if duel["low"] is None else f"{duel['low']:.2f} to {duel['high']:.2f}"
        lines.append(
            f"| {duel['task']} | {duel['precision']} | {size} | {duel['peer']} ({peer}) | {shown[0]} | {shown[1]} "
            f"| {duel['ratio']:.2f} | {interval} |"
        )
    return "\n".join(lines)


def best(duels: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of all duels about the same task, the one against the fastest peer, which is the one that counts."""
    ordered = sorted(duels, key=lambda duel: float(duel["ratio"]))
    kept: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for duel in ordered:
        kept.setdefault(_key(duel)[1:-1], duel)
    return [duel for duel in duels if duel in kept.values()]


def _key(duel: Mapping[str, Any]) -> tuple[Any, ...]:
    task = (duel["peer"], duel["task"], duel["precision"], duel["batch_size"], duel.get("cap"))
    return (*task, tuple(duel.get("preload", ())))


def main(platform: Platform, script: str, peers: Mapping[str, Peer]) -> None:
    """The command line of a package's benchmarks/peers.py."""

    @click.command(help="Time this package's step against public implementations, in turns.")
    @click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), default=TASKS, show_default=True)
    @click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), default=PRECISIONS)
    @click.option(
        "--peer", "names", multiple=True, type=click.Choice(list(peers)), help="Only this one; may be given often."
    )
    @click.option("--batch", type=click.IntRange(1), default=None, help="Training batch.  [default: the spec's]")
    @click.option("--cap", type=click.Choice(list(CAPS)), help="Let both use no more instructions than this.")
    @click.option(
        "--preload",
        multiple=True,
        type=click.Path(exists=True),
        help="Library that the peer's process alone loads first.",
    )
    @click.option("--pairs", type=click.IntRange(1, 10), default=3, show_default=True, help="Of processes.")
    @click.option("--rounds", type=click.IntRange(2), default=4, show_default=True, help="Turns of each pair.")
    @click.option("--device", type=click.Choice(platform.devices), default=platform.devices[0], show_default=True)
    @click.option("--engine", type=click.Choice(platform.engines), default=platform.engines[0], show_default=True)
    @click.option(
        "--spec", "spec_path", type=click.Path(path_type=Path), help="Another workload than the standard one."
    )
    @click.option(
        "--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write; what is in it is kept."
    )
    @click.option("--contender", hidden=True)
    @click.option("--job", hidden=True)
    def command(
        tasks: tuple[str, ...], precisions: tuple[str, ...], names: tuple[str, ...], batch: int | None,
        cap: str | None, preload: tuple[str, ...], pairs: int, rounds: int,
        device: str, engine: str, spec_path: Path | None, out: Path | None, contender: str | None, job: str | None,
    ) -> None:  # fmt: skip
        if contender and job:
            setting = json.loads(job)
            build = _ours(platform, setting["engine"]) if contender == OURS else peers[contender].build
            assert build is not None  # a peer with a script of its own is not built here
            serve(build, setting)
            return
        spec = load_spec(spec_path)
        duels = _read(out) if out else []
        failures: list[str] = []
        for task, precision, name in ((t, p, n) for t in tasks for p in precisions for n in names or peers):
            peer = peers[name]
            if task not in peer.tasks or (peer.devices and device not in peer.devices):
                continue
            size = (batch or spec.training.batch_size) if task == "train" else 1
            setting = Setting(task, precision, size, device, engine, cap, preload)
            try:
                duel = _duel(platform, Path(script).resolve(), name, peer, spec, setting, pairs, rounds)
            except UserError as error:
                failures.append(f"{name}, {task}, {precision}: {error}")
                click.echo(failures[-1], err=True)
                continue
            duels = [other for other in duels if _key(other) != _key(duel)] + [duel]
            click.echo(table([duel]).splitlines()[-1])
            if out:
                _write(out, platform, spec, duels)
        click.echo("\n" + table(duels) + "\n\nThe best setting of a peer, task by task:\n\n" + table(best(duels)))
        if failures:
            raise UserError(f"{len(failures)} of the duels did not take place: {failures[0]}")

    try:
        command(standalone_mode=False)
    except (UserError, click.ClickException) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
