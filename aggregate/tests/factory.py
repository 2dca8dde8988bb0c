"""Results that look like real ones, for tests: valid, with realistic and reproducible numbers."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from click.testing import Result as Invoked

from aggregate.__main__ import main
from aggregate.analysis import merging
from aggregate.analysis.merging import Run
from aggregate.analysis.result import Result
from aggregate.analysis.summary import summary
from aggregate.render import tables
from aggregate.render.tables import Table
from aggregate.tests import invented
from shared_spec.results import format
from shared_spec.results.prices import load_prices
from shared_spec.results.upgrade import HEADLINE_MEMORY, kind_of_failure
from shared_spec.workload.spec import Spec, load_spec, parse_spec

SPEC = load_spec()
SPEEDS = {"mlx": 180.0, "tf-cuda": 3430.0, "torch-ipex": 11.0}
"""Training images/s."""
DEVICES = {
    "mlx": ("gpu", "Apple M4 Max"),
    "tf-cuda": ("cuda", "NVIDIA H200"),
    "torch-ipex": ("cpu", "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz"),
}
ENGINES = {
    "mlx": ("mlx", "0.32.4", "mlx"),
    "tf-cuda": ("tensorflow", "2.21.0", "xla"),
    "torch-ipex": ("torch", "2.8.0", "ipex"),
}
ALL_PHASES = ("conformance", "ceiling", "training", "latency", "inference")
"""Of the quick profile."""
FULL_PHASES = (*ALL_PHASES, "max_batch", "convergence")
PRICES = load_prices()
SHORTER = {"window_seconds": 5.0, "latency_seconds": 0.1, "inference_seconds": 1.0}
"""Than any profile's, so that files and tests stay small."""


def small_spec(**training: Any) -> Spec:
    """A workload other than the standard one: 512 images, two epochs."""
    content = SPEC.to_dict()
    content["name"] = "tiny"
    content["data"]["train_images"] = 512
    content["training"] |= {"epochs": 2, **training}
    return parse_spec(content, "tests")


def make_result(
    platform: str = "torch-ipex",
    *,
    precision: str = "fp32",
    engine: str | None = None,
    framework_version: str | None = None,
    device_name: str | None = None,
    device_kind: str | None = None,
    cores: int = 8,
    speed: float | None = None,
    repeats: int = 1,
    spec: Spec = SPEC,
    data: str = "cifar-100",
    conformance: bool | None = True,
    phases: Sequence[str] = ALL_PHASES,
    failed: Mapping[tuple[str, int], str] | None = None,
    warnings: Sequence[str] = (),
    largest_batch: int = 64,
    seeds: int = 1,
    top1: float = 0.53,
    number: int = 0,
    world_size: int = 1,
    scaling: str = "strong",
) -> dict[str, Any]:
    """A result as plain JSON values.

    Args:
        platform: whose usual engine, device and speed it has where nothing else is asked for.
        precision: fp32 or bf16.
        engine: of the platform.
        framework_version: of its framework.
        device_name: as the framework names it.
        device_kind: cpu, gpu ...
        cores: physical ones of the machine.
        speed: training images/s; everything else follows from it.
        repeats: of training, latency and inference.
        spec: the workload.
        data: cifar-100 or synthetic.
        conformance: whether it is passed; None leaves the phase out.
        phases: those that were run.
        failed: reason by (phase, repeat) of those that fail.
        warnings: of the run.
        largest_batch: of the inference.
        seeds: trainings of the convergence phase.
        top1: what their accuracy rises towards.
        number: tells runs apart that are otherwise the same, also in their noise.
        world_size: ranks that train together.
        scaling: how; `speed` is of all ranks together in strong scaling, of each in weak.
    """
    words = (platform, precision, engine, device_name, device_kind, data, spec.name, number, world_size, scaling)
    digest = hashlib.sha256(repr(words).encode()).hexdigest()
    rng = np.random.default_rng(int(digest[:8], 16))
    speed = speed or SPEEDS[platform] * (2.5 if precision == "bf16" else 1.0)
    framework, version, usual_engine = ENGINES[platform]
    kind, name = DEVICES[platform]
    kind, name, engine = device_kind or kind, device_name or name, engine or usual_engine
    backend = {
        "framework": framework,
        "framework_version": framework_version or version,
        "engine": engine,
        "compile_mode": "whole step",
        "device": {"kind": kind, "name": name, "count": 1},
        "precision": {"requested": precision, "effective": precision},
        "details": {"threads": cores},
    }
    measure = {
        "conformance": lambda seed: invented.conformance(conformance is not False),
        "ceiling": lambda seed: invented.ceiling(rng, spec, speed),
        "training": lambda seed: invented.training(rng, spec, platform, speed, data, seed),
        "latency": lambda seed: invented.latency(rng, platform, speed),
        "inference": lambda seed: invented.inference(rng, platform, speed, largest_batch),
        "max_batch": lambda seed: invented.max_batch(rng, platform, speed),
        "convergence": lambda seed: invented.convergence(rng, spec, platform, speed, data, seed, ceiling=top1),
    }
    counts = {"training": repeats, "latency": repeats, "inference": repeats, "convergence": seeds}
    outcomes = []
    for phase in phases:
        if phase == "conformance" and conformance is None:
            continue
        for repeat in range(counts.get(phase, 1)):
            reason = (failed or {}).get((phase, repeat))
            seed = spec.training.seeds[repeat]
            outcomes.append(
                {
                    "phase": phase,
                    "repeat": repeat,
                    "seed": seed,
                    "status": "failed" if reason else "ok",
                    "failure": kind_of_failure(reason) if reason else None,
                    "reason": reason,
                    "ran": [{"began": "2026-11-01T12:00:00Z", "ended": "2026-11-01T13:00:00Z", "machine": "ab" * 8}],
                    "seconds": 1e6 if phase == "convergence" else 3600.0,
                    "startup": None
                    if reason
                    else {
                        "process_seconds": 0.4,
                        "backend_seconds": 2.5,
                        "preparation_seconds": 0.6,
                        "cached_programs": 0,
                    },
                    "conditions": {"cpu_foreign_share": 0.01, "cpu_stolen_share": 0.0, "swap_grown_bytes": 0},
                    "worker_env": {"OMP_NUM_THREADS": str(cores)},
                    "backend": None if reason else backend,
                    "measurements": None if reason else measure[phase](seed),
                }
            )
    content = spec.to_dict()
    result: dict[str, Any] = {
        "schema_version": format.SCHEMA_VERSION,
        "run_id": digest[:16],
        "created": f"2026-11-{number % 26 + 1:02d}T12:00:00Z",
        "platform": platform,
        "engine": engine,
        "device": kind,
        "precision": precision,
        "parallel": None,
        "profile": {
            "name": "full" if repeats > 1 else "quick",
            "content": content["profiles"]["quick"] | SHORTER | {"inference_max_batch": largest_batch},
        },
        "spec": {
            "name": spec.name,
            "fingerprint": spec.fingerprint,
            "standard": spec.is_standard,
            "content": content,
        },
        "data": invented.DATA[data],
        "initial_params": {"seed": spec.init.seed, "fingerprint": "ab" * 32, "count": 21704164},
        "software": {
            "shared_spec": "0.1.0",
            "git_commit": "0123456789" * 4,
            "git_clean": True,
            "python": "3.11.9",
            "packages": {"numpy": "2.4.6"},
        },
        "environment": {"system": "Linux", "cpu_physical_cores": cores},
        "state_before": {"load_average_1min": 0.3},
        "state_after": {"load_average_1min": 1.9},
        "resumed": 0,
        "warnings": list(warnings),
        "cpu_threads": None,
        "missing": [],
        "wide_intervals": {},
        "headline_memory": HEADLINE_MEMORY[platform],
        "phases": outcomes,
    }
    if world_size > 1:
        _share(result, spec, world_size, scaling)
    unshared: dict[str, Any] = json.loads(json.dumps(result))  # so that a test changes one place only
    return unshared


def _share(result: dict[str, Any], spec: Spec, world_size: int, scaling: str) -> None:
    """Make the trainings of a result those of several ranks, which know of one another."""
    result["parallel"] = {
        "world_size": world_size, "scaling": scaling, "engine": "torch.distributed", "transport": "gloo", "hosts": 1
    }  # fmt: skip
    for outcome in result["phases"]:
        measured = outcome["measurements"]
        if outcome["phase"] not in ("training", "convergence") or not measured:
            continue
        measured["batch_size"] *= world_size if scaling == "weak" else 1
        if outcome["phase"] == "training":
            window, times = measured["window_blocks"], measured["step_seconds"]
            measured["parallel"] = {
                "rank_window_blocks": [[[n, t * (1 + rank / 500)] for n, t in window] for rank in range(world_size)],
                "rank_step_seconds": [times] * world_size,
                "communication_seconds": 0.01,
                "overlapped_seconds": 0.004,
                "params_equal": True,
            }
        else:
            batch = measured["batch_size"]
            steps = measured["steps_per_epoch"] = spec.steps_per_epoch(batch)
            for epoch, within in itertools.product(
                range(spec.training.epochs), enumerate(spec.evaluation_steps(batch))
            ):
                row = epoch * spec.training.evaluations_per_epoch + within[0]
                measured["evaluations"][row]["step"] = epoch * steps + within[1]
            measured["images"] = spec.training.epochs * steps * batch
            if seconds := measured["seconds_to_target"]:
                reached = next(row for row in measured["evaluations"] if row["seconds"] == seconds)
                measured["epochs_to_target"] = reached["step"] / steps
            measured["parallel"] = {"world_sizes": [world_size]}


def save(result: Any, folder: Path, name: str = "result.json") -> Path:
    """Write a result into `folder`, valid or not."""
    path = folder / name
    path.write_text(json.dumps(result), encoding="utf-8")
    return path


def as_runs(*contents: dict[str, Any]) -> list[Run]:
    """Results as the comparison sees them; their files are called 0.json, 1.json ..."""
    results = [Result(f"{i}.json", format.parse(content)) for i, content in enumerate(contents)]
    return merging.runs(results, PRICES)


def with_losses(content: dict[str, Any], losses: list[float | None], repeat: int = 0) -> dict[str, Any]:
    """`content` with this loss trace in one of its training repeats."""
    for outcome in content["phases"]:
        if (outcome["phase"], outcome["repeat"]) == ("training", repeat):
            outcome["measurements"]["loss_trace"] = losses
    return content


def missed(measured: dict[str, Any]) -> None:
    """Make a full training one that misses its target."""
    measured |= {"epochs_to_target": None, "seconds_to_target": None}
    for row in measured["evaluations"]:
        row["top1"] = min(row["top1"], 0.44)


def outcome(result: dict[str, Any], phase: str) -> dict[str, Any]:
    """The first outcome of a phase."""
    first: dict[str, Any] = next(o for o in result["phases"] if o["phase"] == phase)
    return first


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of everything in a result, of long arrays the first two items."""
    paths = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        paths += leaves(item, (*path, key))
    return paths


def table_of(*contents: dict[str, Any]) -> Table:
    """The table of some results, with all their metrics."""
    runs = as_runs(*contents)
    return tables.build("title", "", runs, summary(runs))


def call(*arguments: object) -> Invoked:
    """What `python -m aggregate` says to these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
