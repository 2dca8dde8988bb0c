"""What a package's benchmarks/profile_step.py shares: the whole step, its parts one by one, and the step under variants.

A variant is a set of environment variables; each has a process of its own, since frameworks read them once.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from shared_spec import files
from shared_spec.data import synthetic
from shared_spec.data.batches import TrainingBatches
from shared_spec.machine import topology
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timing import Stepper
from shared_spec.platform import Platform
from shared_spec.workload import params
from shared_spec.workload.spec import PRECISIONS, Spec, load_spec

Part = tuple[str, Callable[[], Any], Callable[[Any], Any]]
"""Name, a call that starts it, and what waits for its result."""


def _seconds(step: Callable[[], Any], wait: Callable[[Any], Any], spec: Spec, seconds: float) -> float:
    """Seconds of one call, over about `seconds` of calls after two that do not count."""
    stepper = Stepper(step, wait, spec.measuring, monotonic)
    stepper.block(1)
    single = stepper.block(1).seconds
    return stepper.block(max(2, round(seconds / max(single, 1e-6)))).step_seconds


def _measure(
    platform: Platform, parts: Callable[[Any, Any], Iterator[Part]], facts: Callable[[Any, Any], Any],
    device: str, precision: str, batch_size: int, seconds: float, whole: bool,
) -> dict[str, Any]:  # fmt: skip
    spec = load_spec()
    module, _, name = platform.backend.partition(":")
    backend = getattr(importlib.import_module(module), name)(spec, device, precision, platform.engines[0])
    backend.load_params(params.initial(spec))
    data = synthetic.dataset(spec)
    host = TrainingBatches(spec, data.train_images, data.train_labels, batch_size, 0).batch(0)
    batch, lr = backend.to_device(host.images, host.targets), spec.learning_rate(0, batch_size)
    start = monotonic()
    backend.synchronize(backend.train_step(batch, lr))
    first = monotonic() - start
    step = _seconds(lambda: backend.train_step(batch, lr), backend.synchronize, spec, seconds)
    inference = _seconds(lambda: backend.infer(batch), backend.synchronize, spec, seconds)
    one = backend.to_device(host.images[:1], None)
    latency = _seconds(lambda: backend.to_numpy(backend.infer(one)), lambda _: None, spec, seconds)
    found: dict[str, Any] = {
        "first_step_seconds": first, "step_seconds": step, "images_per_second": batch_size / step,
        "inference_seconds": inference, "latency_seconds": latency,
    }  # fmt: skip
    if not whole:
        found |= {"describe": backend.describe(), "facts": facts(backend, batch)}
        found["parts"] = {name: _seconds(call, wait, spec, seconds) for name, call, wait in parts(backend, batch)}
    return found


def _in_process(command: list[str], env: Mapping[str, str]) -> Any:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    told = done.stderr.strip().splitlines() or ["no word"]
    return {"failed": next((line for line in told if "flag" in line.lower()), told[-1])[:300]}


def _show(found: Mapping[str, Any], batch_size: int) -> None:
    print(f"step {found['step_seconds'] * 1e3:.3f} ms, {found['images_per_second']:.1f} images/s at batch {batch_size}")
    print(f"inference {found['inference_seconds'] * 1e3:.3f} ms, at batch 1 {found['latency_seconds'] * 1e3:.3f} ms")
    print(f"in a step: {found['facts']}")
    for name, took in found["parts"].items():
        print(f"{took * 1e3:10.3f} ms  {name}")


def main(
    platform: Platform, script: str, parts: Callable[[Any, Any], Iterator[Part]],
    facts: Callable[[Any, Any], Any], variants: Mapping[str, Mapping[str, str]],
) -> None:  # fmt: skip
    """The command line: `variants` are environment variables by name, `facts` whatever else is to be told of a step."""

    @click.command(help="Where a training step's time goes on this device.")
    @click.option("--device", type=click.Choice(platform.devices), default=platform.devices[0], show_default=True)
    @click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
    @click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
    @click.option("--seconds", type=float, default=2.0, show_default=True, help="For each part.")
    @click.option("--variants/--no-variants", "with_variants", default=True, show_default=True)
    @click.option("--out", type=click.Path(path_type=Path, dir_okay=False))
    @click.option("--here", type=click.Choice(["all", "whole"]), hidden=True)
    def command(
        device: str, precision: str, batch: int, seconds: float, with_variants: bool, out: Path | None, here: str | None
    ) -> None:
        if here:
            print(json.dumps(_measure(platform, parts, facts, device, precision, batch, seconds, here == "whole")))
            return
        words = ["--device", device, "--precision", precision, "--batch", str(batch), "--seconds", str(seconds)]
        call = [sys.executable, script, *words, "--here"]
        env = {**os.environ, **platform.worker_env(device, platform.engines[0], topology.threads())}
        found: dict[str, Any] = _in_process([*call, "all"], env)
        if "failed" in found:
            raise click.ClickException(found["failed"])
        _show(found, batch)
        found["variants"] = {}
        for name, own in variants.items() if with_variants else ():
            told = _in_process([*call, "whole"], {**env, **own})
            found["variants"][name] = {"env": dict(own), **told}
            print(f"{told['step_seconds'] * 1e3:10.3f} ms  {name}" if "step_seconds" in told else f"{name}: {told}")
            if out:
                files.write(out, found)  # after each: a call that is cut short has given something
        if out:
            files.write(out, found)

    command()
