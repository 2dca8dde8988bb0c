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
UNPROVED = {"checks": None, "unchecked": None}
"""As in a result of before there were checks of what was timed."""
SHORTER = {"window_seconds": 5.0, "latency_seconds": 0.1, "inference_seconds": 1.0}
"""Than any profile's, so that files and tests stay small."""


def small_spec(**training: Any) -> Spec:
    """A workload other than the standard one: 512 images, two epochs."""
    content = SPEC.to_dict()
    content["name"] = "tiny"
    content["data"]["train_images"] = 512
    content["training"] |= {"epochs": 2, **training}
    return parse_spec(content, "tests")


def _blocks(
    rng: np.random.Generator, step_seconds: float, blocks: int, steps: int, spread: float = 0.01
) -> list[list[float]]:
    return [[steps, steps * step_seconds * float(np.exp(rng.normal(0, spread)))] for _ in range(blocks)]


def _conformance(passed: bool) -> dict[str, Any]:
    checks = [
        {"name": name, "passed": True, "figure": bound / 7, "bound": bound, "detail": "largest absolute difference"}
        for name, bound in (
            ("parameters", 1.0),
            ("preprocess", 2e-6),
            ("logits", 3e-5),
            ("gradients", 4e-4),
            ("trace", 1e-3),
        )
    ]
    if not passed:
        checks[2] |= {"passed": False, "figure": 0.0123}
    return {"passed": passed, "checks": checks}


def _memory(platform: str, peak: int) -> dict[str, int | None]:
    device: dict[str, dict[str, int | None]] = {
        "mlx": {"mlx_peak": peak // 2, "mlx_active": peak // 4, "mlx_cache": 0, "footprint_peak": peak},
        "tf-cuda": {"tf_peak": peak // 2, "tf_current": None, "nvml_process": peak},
        "torch-ipex": {},
    }
    host = {
        "host_peak": peak,
        "host_before_framework": peak // 64,
        "host_before_model": peak // 8,
        "host_loader": 2**27,
    }
    return {**device[platform], **host}


def _energy(watts: float, seconds: float) -> dict[str, Any]:
    return {
        "joules": watts * seconds,
        "reason": None,
        "source": "rapl-package",
        "scope": "both packages, without memory",
        "samples": 1,
        "step_seconds": 0.001,
        "beside": [{"what": "memory", "joules": 0.1 * watts * seconds, "reason": None}],
    }


def _training(rng: np.random.Generator, spec: Spec, platform: str, speed: float, seed: int) -> dict[str, Any]:
    batch = spec.training.batch_size
    step = batch / speed
    noise = np.random.default_rng(seed).normal(0, 0.02, 100)  # what the data of this seed do, on every platform
    losses = 4.65 - 0.8 * (1 - np.exp(-np.arange(100) / 60)) + noise
    window = _blocks(rng, step, 20, max(2, int(0.5 / step)))
    return {
        "parallel": None,
        "batch_size": batch,
        "first_step_seconds": 12.0 + step,
        "warmup_blocks": [[2, 3 * step], *_blocks(rng, step, 4, 2)],
        "steady": True,
        "window_blocks": window,
        "window_host_wait_seconds": 0.003 * sum(seconds for _, seconds in window),
        "window_host_seconds": {
            name: share * sum(seconds for _, seconds in window)
            for name, share in (("wait", 0.003), ("transfer", 0.002), ("dispatch", 0.1), ("drain", 0.85))
        },
        "feeding_blocks": [[10, 10.05 * step, 10 * step] for _ in range(4)],
        "step_seconds": [step * float(np.exp(rng.normal(0.01, 0.02))) for _ in range(30)],
        "idle": {**_energy(40.0, 3.0), "seconds": 3.0},
        "idle_before": {**_energy(30.0, 3.0), "seconds": 3.0},
        "energy": _energy(150.0, sum(seconds for _, seconds in window)),
        "loss_trace": [float(loss) for loss in losses * (1 + rng.normal(0, 1e-5, 100))],
        "norm_trace": None,
        "memory": _memory(platform, 6 * 2**30),
        **UNPROVED,
    }


def _latency(rng: np.random.Generator, platform: str, speed: float) -> dict[str, Any]:
    middle = 0.35 / speed + 0.001
    host = middle * np.exp(rng.gamma(1.5, 0.03, 1000))
    return {
        "first_inference_seconds": 1.5,
        "warmup_blocks": _blocks(rng, middle, 4, 10),
        "steady": True,
        "host_to_host_seconds": [float(t) for t in host],
        "device_only_seconds": [float(t) for t in 0.9 * host],
        "memory": _memory(platform, 2**30),
        **UNPROVED,
    }


def _inference(rng: np.random.Generator, platform: str, speed: float, largest: int) -> dict[str, Any]:
    sizes = []
    for batch in (2**i for i in range(largest.bit_length())):
        rate = 3.2 * speed * batch / (batch + 4)
        sizes.append(
            {
                "batch_size": batch,
                "first_inference_seconds": 0.8,
                "steady": True,
                "window_blocks": _blocks(rng, batch / rate, 5, max(2, int(0.5 * rate / batch))),
                "memory": _memory(platform, 2**30),
            }
        )
    return {"sizes": sizes, "stopped": None, "memory": _memory(platform, 2**30), **UNPROVED}


def _ceiling(rng: np.random.Generator, spec: Spec, speed: float) -> dict[str, Any]:
    rate = 2.2 * spec.model.training_flops * speed
    return {
        "sizes": [
            {"n": n, "blocks": _blocks(rng, 2 * n**3 / (rate * n / (n + 700)), 1, 8)} for n in (512, 1024, 2048, 4096)
        ],
        **UNPROVED,
    }


def _max_batch(rng: np.random.Generator, platform: str, speed: float) -> dict[str, Any]:
    """Doubling to 256, where memory ends, then one bisection: 192 is the answer."""
    tries = []
    for batch in (32, 64, 128, 256, 192):
        measured = {
            "first_step_seconds": 2.0,
            "window_blocks": _blocks(rng, (batch + 4) / (1.3 * speed), 1, 5),
            "memory": _memory(platform, 2 * 2**30 + batch * 2**27),
            "whole": batch == 192,
            **UNPROVED,
        }
        fits = batch != 256
        tries.append({
            "batch_size": batch,
            "outcome": "fits" if fits else "out of memory",
            "reason": None if fits else "out of memory: killed by SIGKILL",
            "measurements": measured if fits else None,
        })  # fmt: skip
    return {"batch_size": 192, "ended_by": "batch 256: out of memory", "tries": tries}


def _convergence(
    rng: np.random.Generator, spec: Spec, platform: str, speed: float, *, ceiling: float
) -> dict[str, Any]:
    """A training whose top-1 rises towards `ceiling`."""
    images = spec.data.train_images // spec.training.batch_size * spec.training.batch_size
    rows: list[dict[str, Any]] = []
    epochs = spec.training.epochs
    per_epoch, steps_per_epoch = spec.training.evaluations_per_epoch, spec.steps_per_epoch(spec.training.batch_size)
    for epoch in (turn / per_epoch for turn in range(1, per_epoch * epochs + 1)):
        top1 = round(ceiling * (1 - float(np.exp(-epoch / 5))) + float(rng.normal(0, 0.002)), 4)  # of 10,000 images
        seconds = epoch * (images / speed + 5.0 + 1.0) + 12.0
        rows.append({
            "step": int(epoch * steps_per_epoch),
            "seconds": seconds,
            "first_seconds": 12.5,
            "evaluation_seconds": 5.0 * epoch,
            "checkpoint_seconds": 1.0 * max(0.0, epoch - 1),
            "train_loss": 4.0 - 0.1 * epoch,
            "test_loss": 4.0 - 0.09 * epoch,
            "top1": top1,
            "class_right": None,
            "joules": 150.0 * seconds,
        })  # fmt: skip
    reached = next((row for row in rows if row["top1"] >= spec.training.target_top1), None)
    last = rows[-1]
    return {
        "parallel": None,
        "batch_size": spec.training.batch_size,
        "stop": "epochs",
        "target_top1": spec.training.target_top1,
        "steps_per_epoch": steps_per_epoch,
        "epochs_to_target": reached["step"] / steps_per_epoch if reached else None,
        "seconds_to_target": reached["seconds"] if reached else None,
        "images": images * epochs,
        "seconds": last["seconds"],
        "evaluation_seconds": last["evaluation_seconds"],
        "checkpoint_seconds": last["checkpoint_seconds"],
        "checkpoint_write_seconds": 9.0,
        "first_step_seconds": 12.0,
        "first_inference_seconds": 0.5,
        "host_wait_seconds": 3.0,
        "evaluations": rows,
        "loss_trace": [4.6] * 100,
        "class_images": None,
        "energy": _energy(150.0, last["seconds"]),
        "resumed": 0,
        "final_params": "cd" * 32,
        "memory": _memory(platform, 6 * 2**30),
        **UNPROVED,
    }


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
        "conformance": lambda seed: _conformance(conformance is not False),
        "ceiling": lambda seed: _ceiling(rng, spec, speed),
        "training": lambda seed: _training(rng, spec, platform, speed, seed),
        "latency": lambda seed: _latency(rng, platform, speed),
        "inference": lambda seed: _inference(rng, platform, speed, largest_batch),
        "max_batch": lambda seed: _max_batch(rng, platform, speed),
        "convergence": lambda seed: _convergence(rng, spec, platform, speed, ceiling=top1),
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
                    "ran": [{"began": "2026-01-01T12:00:00Z", "ended": "2026-01-01T13:00:00Z", "machine": "ab" * 8}],
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
        "created": f"2026-01-{number % 28 + 1:02d}T12:00:00Z",
        "platform": platform,
        "engine": engine,
        "device": kind,
        "precision": precision,
        "parallel": None,
        "profile": {"name": "full" if repeats > 1 else "quick", "content": content["profiles"]["quick"] | SHORTER},
        "spec": {
            "name": spec.name,
            "fingerprint": spec.fingerprint,
            "standard": spec.is_standard,
            "content": content,
        },
        "data": {
            "source": data,
            "checksums": {"train": "16019d7e3df5f24257cddd939b257f8d"} if data == "cifar-100" else {},
        },
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
