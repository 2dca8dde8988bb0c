"""NVIDIA GPUs through NVML (nvidia-ml-py): the board's energy counter, else its power, integrated.

Metered is the board: the GPU, its memory and its voltage converters, not the host, and for all processes at once.
No root is needed. A query is a call into the driver, which on some boards takes milliseconds.
"""

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from shared_spec.machine.energy.meter import LIMIT_MARGIN, Clock, Meter, NoMeter, implausible
from shared_spec.machine.nvml import Gpu, NoGpu, connect, load, thousandth
from shared_spec.machine.sampler import Sampler
from shared_spec.results.quantities import Energy, EnergySource

UPDATE_SECONDS = 0.5
"""Longer than the counter stands still; generous, for drivers that are slow."""
STEP_SECONDS = 0.1
"""The counter and the power figure move about every 100 ms (https://ml.energy/blog)."""
SAMPLE_SECONDS = 0.04
"""Twice as often as the power figure moves, so that no step of it is missed."""
MIN_SAMPLES = 60
MAX_GAP_SECONDS = 1.0
"""With MIN_SAMPLES MLPerf's rule for sampled power: 60 samples or more, 1 Hz or faster."""


def open_meter(
    clock: Clock, nvml: Any = None, environ: Mapping[str, str] = os.environ, sampler: type[Sampler] = Sampler
) -> Meter:
    """The best meter of CUDA's device 0; `nvml` stands in for the pynvml module.

    Raises:
        NoMeter: no bindings, no driver, no GPU, or one that tells neither energy nor power.
    """
    try:
        gpu = connect(nvml or load(), environ)
    except NoGpu as error:
        raise NoMeter(str(error)) from None
    if gpu.ask("nvmlDeviceGetTotalEnergyConsumption"):  # some virtual GPUs answer, but always 0
        return CounterMeter(gpu, clock)
    if gpu.ask("nvmlDeviceGetPowerUsage"):
        return IntegratedMeter(gpu, clock, sampler)
    raise NoMeter(f"{gpu.name} tells NVML neither its energy nor its power")


class CounterMeter:
    """Difference of nvmlDeviceGetTotalEnergyConsumption: mJ since the driver was loaded, on Volta and later."""

    source: EnergySource = "nvml-counter"

    def __init__(self, gpu: Gpu, clock: Clock) -> None:
        self.scope = f"{gpu.name}, the whole board"
        self._gpu, self._clock = gpu, clock
        self.start()

    def start(self) -> None:
        self._started, self._before = self._clock(), self._count()

    def stop(self) -> Energy:
        before, after, seconds = self._before, self._count(), self._clock() - self._started
        if before is None or after is None:
            return self._null(f"NVML no longer tells the energy of {self._gpu.name}")
        if after < before:
            return self._null(f"the energy counter of {self._gpu.name} went backwards, as when its driver is reloaded")
        joules = (after - before) / 1000
        reason = implausible(joules, seconds, UPDATE_SECONDS, self._gpu.limit_watts())
        if reason:
            return self._null(f"{self._gpu.name}: {reason}")
        return Energy(
            joules=joules, reason=None, source=self.source, scope=self.scope, samples=1, step_seconds=STEP_SECONDS
        )

    def _null(self, reason: str) -> Energy:
        return Energy(joules=None, reason=reason, source=self.source, scope=self.scope, samples=1)

    def _count(self) -> int | None:
        millijoules: int | None = self._gpu.ask("nvmlDeviceGetTotalEnergyConsumption")
        return millijoules


class IntegratedMeter:
    """nvmlDeviceGetPowerUsage sampled on a thread and integrated by the trapezoidal rule: GPUs before Volta.

    stop() waits for a query under way. A window is no measurement if it yields fewer than 60 samples, if there is a
    gap of more than a second between two, or if a query went without an answer.
    """

    source: EnergySource = "nvml-integrated"

    def __init__(self, gpu: Gpu, clock: Clock, sampler: type[Sampler] = Sampler) -> None:
        self.scope = f"{gpu.name}, the whole board"
        self._gpu, self._clock = gpu, clock
        self._samples: list[tuple[float, float]] = []
        self._unanswered = 0
        self._sampler = sampler(self._take, SAMPLE_SECONDS)

    def start(self) -> None:
        self._sampler.stop()
        self._samples, self._unanswered = [], 0
        self._take()
        self._sampler.start()

    def stop(self) -> Energy:
        self._sampler.stop()
        self._take()
        reason, samples = self._objection(), len(self._samples)
        joules = None if reason else self._integral()
        return Energy(
            joules=joules,
            reason=reason,
            source=self.source,
            scope=self.scope,
            samples=samples,
            step_seconds=STEP_SECONDS,
        )

    def _take(self) -> None:
        watts = thousandth(self._gpu.ask("nvmlDeviceGetPowerUsage"))
        if watts is None:
            self._unanswered += 1
        else:
            self._samples.append((self._clock(), watts))

    def _integral(self) -> float:
        return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(self._samples))

    def _objection(self) -> str | None:
        """Why the samples are no measurement; None where they are."""
        count, limit = len(self._samples), self._gpu.limit_watts()
        if self._unanswered:
            return f"NVML no longer tells the power of {self._gpu.name}"
        if count < MIN_SAMPLES:
            return f"{count} power samples of {self._gpu.name} are too few to integrate ({MIN_SAMPLES} needed)"
        gap = max(t1 - t0 for (t0, _), (t1, _) in pairwise(self._samples))
        if gap > MAX_GAP_SECONDS:
            return f"the power samples of {self._gpu.name} have a gap of {gap:.3g} s"
        mean = self._integral() / (self._samples[-1][0] - self._samples[0][0])
        if mean <= 0:
            return f"{self._gpu.name} reports a power of 0 W"
        if limit is not None and mean > LIMIT_MARGIN * limit:
            return f"{self._gpu.name} reports {mean:.4g} W, more than its limit of {limit:.4g} W"
        return None
