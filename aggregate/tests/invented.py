"""Measurements of each phase that look like real ones; tests.factory makes results of them."""

from typing import Any

import numpy as np

from shared_spec.conformance.losses import golden_losses
from shared_spec.results.format import UsedData
from shared_spec.workload.spec import Spec

DATA: dict[str, dict[str, Any]] = {
    "cifar-100": {
        "source": "cifar-100",
        "checksums": {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    },
    "synthetic": {
        "source": "synthetic",
        "checksums": {"synthetic_sha256": "c93ee83d5f99f2ca699490691d739759ad2a0b357e5e3b5b7298e9a2c1d7d0f5"},
    },
}
UNPROVED = {"checks": None, "unchecked": None}
"""As in a result of before there were checks of what was timed."""


def _blocks(
    rng: np.random.Generator, step_seconds: float, blocks: int, steps: int, spread: float = 0.01
) -> list[list[float]]:
    return [[steps, steps * step_seconds * float(np.exp(rng.normal(0, spread)))] for _ in range(blocks)]


def conformance(passed: bool) -> dict[str, Any]:
    checks = [
        {"name": name, "passed": True, "figure": bound / 7, "bound": bound, "detail": "largest absolute difference"}
        for name, bound in (
            ("parameters", 0.0),
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


def _losses(spec: Spec, data: str, batch: int, seed: int) -> Any:
    """What the data of this seed do, on every platform: the reference's losses where they are kept."""
    if known := golden_losses(spec, UsedData.model_validate(DATA[data]), batch, seed):
        return known["loss/value"]
    return 4.65 - 0.8 * (1 - np.exp(-np.arange(100) / 60)) + np.random.default_rng(seed).normal(0, 0.02, 100)


def training(rng: np.random.Generator, spec: Spec, platform: str, speed: float, data: str, seed: int) -> dict[str, Any]:
    batch = spec.training.batch_size
    step = batch / speed
    losses = _losses(spec, data, batch, seed)
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


def latency(rng: np.random.Generator, platform: str, speed: float) -> dict[str, Any]:
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


def inference(rng: np.random.Generator, platform: str, speed: float, largest: int) -> dict[str, Any]:
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


def ceiling(rng: np.random.Generator, spec: Spec, speed: float) -> dict[str, Any]:
    rate = 2.2 * spec.model.training_flops * speed
    return {
        "sizes": [
            {"n": n, "blocks": _blocks(rng, 2 * n**3 / (rate * n / (n + 700)), 1, 8)} for n in (512, 1024, 2048, 4096)
        ],
        **UNPROVED,
    }


def max_batch(rng: np.random.Generator, platform: str, speed: float) -> dict[str, Any]:
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


def convergence(
    rng: np.random.Generator, spec: Spec, platform: str, speed: float, data: str, seed: int, *, ceiling: float
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
        "loss_trace": [float(loss) for loss in _losses(spec, data, spec.training.batch_size, seed)],
        "class_images": None,
        "energy": _energy(150.0, last["seconds"]),
        "resumed": 0,
        "final_params": "cd" * 32,
        "memory": _memory(platform, 6 * 2**30),
        **UNPROVED,
    }
