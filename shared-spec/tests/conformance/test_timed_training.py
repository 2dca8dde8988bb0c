"""The training that is timed is the one that is proved: each planted fault fails the check meant for it."""

import math
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from reference_backend import Work, bf16_product, rounded
from timed_backend import Timed, failed

from shared_spec.conformance import timed
from shared_spec.conformance.losses import Losses, compute_losses
from shared_spec.data import synthetic
from shared_spec.data.batches import HostBatch, TrainingBatches
from shared_spec.measure.training import Trainer
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

STEPS, BATCH = 26, 8


@cache
def expected(spec: Spec) -> Losses:
    return compute_losses(spec, synthetic.dataset(spec), BATCH, 0)


class NoWork(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        return self.last if self.late() else self.remembered(super().train_step(batch, lr))

    def remembered(self, work: Work) -> Work:
        self.last = work
        return work


class WithoutUpdate(Timed):
    """Losses as ever, of parameters that stay as they are."""

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        before = self.state
        work = super().train_step(batch, lr)
        if before.step > 20:
            self.state = replace(before, step=before.step + 1)
        return work


class OtherOptimizer(Timed):
    """Something of the optimiser is otherwise from step 21 on."""

    changes: ClassVar[dict[str, float]] = {}

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        self.spec = (
            self.spec.changed(optimizer=self.spec.optimizer.changed(**self.changes)) if self.late() else self.spec
        )
        return super().train_step(batch, lr)


class NotClipped(OtherOptimizer):
    changes: ClassVar = {"clip_norm": math.inf}


class NoDecay(OtherOptimizer):
    changes: ClassVar = {"weight_decay": 0.0}


class OtherBeta2(OtherOptimizer):
    changes: ClassVar = {"beta2": 0.99}


class MovingAverage(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        before, work = self.state, super().train_step(batch, lr)
        if self.late():
            averaged = {name: 0.9 * p + 0.1 * self.state.params[name] for name, p in before.params.items()}
            self.state = replace(self.state, params=averaged)
        return work


class PeakDecay(Timed):
    """Decays by the largest learning rate so far, whatever the step's own."""

    peak_rate = 0.0

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        before, work = self.state.params, super().train_step(batch, lr)
        self.peak_rate = max(self.peak_rate, lr)
        decay = (self.peak_rate - lr) * self.spec.optimizer.weight_decay
        more = {name: -decay * p for name, p in before.items() if params.has_decay(name, p.shape)}
        values = {name: p + more.get(name, 0) for name, p in self.state.params.items()}
        self.state = replace(self.state, params=values)
        return work


class SkipsEveryThird(Timed):
    """Every third step is left out after the twentieth, as if it had overflown."""

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        before, work = self.state, super().train_step(batch, lr)
        if self.late() and self.state.step % 3 == 0:
            self.state = replace(before, step=before.step + 1)
        return work


class LateRate(Timed):
    """Each step has the learning rate of the one before."""

    rate = 0.0

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        rate, self.rate = self.rate, lr
        return super().train_step(batch, rate)


class Bf16Moments(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        work = super().train_step(batch, lr)
        m, v = ({name: rounded(x, 8) for name, x in values.items()} for values in (self.state.m, self.state.v))
        self.state = replace(self.state, m=m, v=v)
        return work


class Bf16Parameters(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        work = super().train_step(batch, lr)
        if self.late():
            self.state = replace(self.state, params={name: rounded(x, 8) for name, x in self.state.params.items()})
        return work


class Stochastic(Timed):
    """Leaves every other step's second moments alone, as a lazy optimiser does."""

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        before, work = self.state.v, super().train_step(batch, lr)
        if self.late():
            self.state = replace(self.state, v=before)
        return work


class HalfTheRows(Timed):
    def _loss_and_gradients(self, batch: HostBatch) -> Any:
        rows = len(batch.images) if len(batch.images) <= 4 else len(batch.images) // 2
        return super()._loss_and_gradients(HostBatch(batch.images[:rows], batch.targets[:rows]))


class LastRowDropped(Timed):
    def _loss_and_gradients(self, batch: HostBatch) -> Any:
        rows = len(batch.images) - (len(batch.images) > 4)
        return super()._loss_and_gradients(HostBatch(batch.images[:rows], batch.targets[:rows]))


class SameBatch(Timed):
    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> HostBatch:
        self.transfers = getattr(self, "transfers", 0) + 1
        self.kept = super().to_device(images, targets) if self.transfers <= 12 else self.kept
        return self.kept


class HalvedLosses(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        work = super().train_step(batch, lr)
        return Work(work.value * np.array([0.5, 1], np.float32), work.done_at)


class NotFinite(Timed):
    def train_step(self, batch: HostBatch, lr: float) -> Work:
        work = super().train_step(batch, lr)
        return Work(work.value * np.nan, work.done_at)


def trained(spec: Spec, kind: type[Timed], precision: str = "fp32", flips: bool = True) -> list[Check]:
    """Checks of a training of STEPS steps by a backend of this kind."""
    data = synthetic.dataset(spec)
    fed = spec if flips else spec.changed(data=spec.data.changed(flip_probability=0.0))
    batches = TrainingBatches(fed, data.train_images, data.train_labels, BATCH, 0)
    backend = kind(spec, "cpu", precision, "numpy")
    backend.load_params(params.initial(spec))
    trainer = Trainer(backend, spec, map(batches.batch, range(STEPS + 1)), BATCH, backend.clock)
    for _ in range(STEPS):
        trainer.step()
    losses, norms = trainer.losses_and_norms()
    found = {"loss": [x if math.isfinite(x) else None for x in losses], "norm": norms}
    checks = [*timed.losses_checks(spec, precision, expected(spec), found)]
    checks += timed.late_step_checks(backend, spec, batches.batch(STEPS), spec.learning_rate(STEPS, BATCH))
    return checks


TRAINING_FAULTS: dict[str, tuple[type[Timed], set[str]]] = {
    "no work after step 20": (NoWork, {"golden losses", "late step, second moments"}),
    "no update after step 20": (WithoutUpdate, {"golden losses", "late step, parameters"}),
    "no clip after step 20": (NotClipped, {"late step, clip"}),
    "no decay after step 20": (NoDecay, {"late step, parameters"}),
    "beta2 0.99 after step 20": (OtherBeta2, {"late step, second moments"}),
    "moving average of weights from step 21": (MovingAverage, {"golden losses", "late step, parameters"}),
    "decay by the peak rate": (PeakDecay, {"late step, parameters"}),
    "every third step left out after step 20": (SkipsEveryThird, {"golden losses", "late step, parameters"}),
    "learning rate one step late": (LateRate, {"golden losses", "late step, parameters"}),
    "moments kept in bf16": (Bf16Moments, {"late step, second moments"}),
    "parameters kept in bf16 after step 20": (Bf16Parameters, {"late step, parameters"}),
    "second moments left alone after step 20": (Stochastic, {"late step, second moments"}),
    "half the rows above batch 4": (HalfTheRows, {"golden losses", "golden gradient norms"}),
    "last row dropped above batch 4": (LastRowDropped, {"golden losses", "golden gradient norms"}),
    "same batch reused after some transfers": (SameBatch, {"golden losses", "golden gradient norms"}),
    "losses halved": (HalvedLosses, {"golden losses"}),
    "losses that are no numbers": (NotFinite, {"golden losses"}),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faultless_training_passes(spec: Spec, precision: str) -> None:
    checks = trained(spec, Timed, precision)
    assert failed(checks) == set()
    assert len(checks) == 5


@pytest.mark.parametrize("fault", TRAINING_FAULTS)
def test_fault_of_the_training_fails_its_check(spec: Spec, fault: str) -> None:
    kind, meant = TRAINING_FAULTS[fault]
    assert meant <= failed(trained(spec, kind))


@pytest.mark.parametrize(
    "fault",
    [
        "no work after step 20",
        "no update after step 20",
        "no clip after step 20",
        "moments kept in bf16",
        "half the rows above batch 4",
        "same batch reused after some transfers",
        "losses halved",
    ],
)
def test_fault_of_the_training_fails_a_check_in_bf16(spec: Spec, fault: str) -> None:
    assert failed(trained(spec, TRAINING_FAULTS[fault][0], "bf16")) & TRAINING_FAULTS[fault][1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_flips_left_out_fail_the_golden_losses(spec: Spec, precision: str) -> None:
    assert failed(trained(spec, Timed, precision, flips=False)) & {"golden losses", "golden gradient norms"}


def test_tf32_or_bf16_products_in_place_of_fp32_fail_the_golden_losses(spec: Spec) -> None:
    class Lower(Timed):
        def _loss_and_gradients(self, batch: HostBatch) -> Any:
            self.patches = {"product": bf16_product} if len(batch.images) > 4 else {}
            return super()._loss_and_gradients(batch)

    assert "golden gradient norms" in failed(trained(spec, Lower))
