"""What the user asked for, the phase processes that come of it, and how long they may take."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shared_spec import ranks as shared_ranks
from shared_spec.measure.convergence import Stop
from shared_spec.platform import Platform
from shared_spec.run.job import PARALLEL, REPEATED
from shared_spec.workload.spec import Profile, Spec


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        data: --data as given; None looks in the usual places, "synthetic" asks for the stand-in.
        phases: the phases to run, in order.
        out: folder of the result.
        fresh: throw away what an unfinished run of the same kind left.
        stop: whether a full training ends at the target or after all epochs.
        power_watts: what a wall meter shows, where the user reads one.
        largest_batch: no larger batch is tried.
        memory_share: part of the physical memory that a try may take where the device has none of its own.
        keep_weights: leave the final weights of each full training beside the result.
        ranks: how many processes train together.
        scaling: what grows with their number: nothing ("strong") or the global batch ("weak").
        rank_timeout: seconds of silence after which a rank is given up.
    """

    platform: Platform
    spec: Spec
    profile_name: str
    precision: str
    device: str
    engine: str
    data: str | None
    phases: tuple[str, ...]
    out: Path
    fresh: bool = False
    stop: Stop = "epochs"
    power_watts: float | None = None
    largest_batch: int = 65536
    memory_share: float = 0.7
    keep_weights: bool = False
    ranks: int = 1
    scaling: str = "strong"
    rank_timeout: float = shared_ranks.DEFAULT_TIMEOUT

    @property
    def batch_size(self) -> int:
        """Of the global batch: what the spec says, for each rank where the scaling is weak."""
        return self.spec.training.batch_size * (self.ranks if self.scaling == "weak" else 1)

    @property
    def planned_phases(self) -> tuple[str, ...]:
        """The phases that can be run: with several ranks, those they share and the ceiling of one device."""
        if self.ranks == 1:
            return self.phases
        return tuple(phase for phase in self.phases if phase in (*PARALLEL, "ceiling"))

    @cached_property
    def profile(self) -> Profile:
        return self.spec.profile(self.profile_name)


@dataclass(frozen=True)
class Planned:
    """One phase process to be: which phase, which repeat of it."""

    phase: str
    repeat: int
    number: int

    @property
    def title(self) -> str:
        return f"{self.phase} {self.repeat + 1}" if self.phase in (*REPEATED, "convergence") else self.phase

    @property
    def stem(self) -> str:
        return f"{self.number:02d}-{self.phase}-{self.repeat}"


def plan(profile: Profile, chosen: tuple[str, ...]) -> list[Planned]:
    """The phase processes in order: round after round of the repeated ones, so that slow drift hits all alike."""
    order = [(phase, 0) for phase in chosen if phase in ("conformance", "ceiling")]
    order += [(phase, r) for r in range(profile.repeats) for phase in chosen if phase in REPEATED]
    order += [("max_batch", 0)] if "max_batch" in chosen else []
    order += [("convergence", r) for r in range(profile.convergence_repeats) if "convergence" in chosen]
    return [Planned(phase, repeat, number) for number, (phase, repeat) in enumerate(order)]


COMPILED = {"conformance": 2.0, "training": 1.0, "latency": 0.25, "max_batch": 10.0, "convergence": 1.25}
"""What a phase compiles, in training steps; a forward pass is about a quarter of one, and inference has one a size."""


def estimate(phase: str, spec: Spec, profile: Profile, rate: float, compile_seconds: float = 0.0) -> float:
    """Rough seconds for a phase process on a device that computes at `rate` FLOP/s; for the plan and the ETA only.

    `compile_seconds` is what the framework takes to compile a training step.
    """
    model, rules, start_up = spec.model, spec.measuring, 10.0 + COMPILED.get(phase, 0.0) * compile_seconds
    step = spec.training.batch_size * model.training_flops / rate
    image = model.forward_flops / rate
    warmup_steps = 1 + rules.steady_blocks * rules.block_steps
    if phase == "conformance":
        return start_up + 120 * model.training_flops / rate + 15
    if phase == "ceiling":
        return start_up + 1.5 * profile.ceiling_seconds
    if phase == "training":
        window = max(profile.window_min_steps * step, profile.window_seconds)
        return start_up + (warmup_steps + profile.step_samples) * step + window
    if phase == "latency":
        return start_up + 2.5 * max(profile.latency_samples * image, profile.latency_seconds)
    if phase == "max_batch":
        return start_up + 10 * (10.0 + (2 + profile.max_batch_steps) * 8 * step)
    if phase == "convergence":
        evaluation = spec.data.test_images * image
        return start_up + spec.training.epochs * (spec.steps_per_epoch(spec.training.batch_size) * step + evaluation)
    sizes = [1 << i for i in range(profile.inference_max_batch.bit_length())]
    compiling = 0.25 * len(sizes) * compile_seconds
    return start_up + compiling + sum(max(3 * profile.inference_seconds, warmup_steps * size * image) for size in sizes)


def guessed_rate(device: str) -> float:
    """FLOP/s to plan with before the ceiling phase has measured any: a product in NumPy on a CPU, else 20 TFLOP/s."""
    if device != "cpu":
        return 2e13
    n = 1024
    a = np.ones((n, n), np.float32)
    a @ a
    start = time.perf_counter()
    a @ a
    return 1.4 * float(n) ** 3 / (time.perf_counter() - start)
