"""What is timed is what is proved: a faultless backend passes, and each planted fault fails the check meant for it.

The faults are those of a backend that behaves where conformance looks (batches of 4, 20 steps) and not where is timed.
"""

import math
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from reference_backend import ReferenceBackend, Work, bf16_product, rounded

from shared_spec.conformance import timed
from shared_spec.conformance.losses import Losses, compute_losses
from shared_spec.data import synthetic
from shared_spec.data.batches import HostBatch, TrainingBatches
from shared_spec.measure import inference
from shared_spec.measure.clock import monotonic
from shared_spec.measure.seen import Handful, Seen
from shared_spec.measure.training import Trainer
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

STEPS, BATCH = 26, 8


@pytest.fixture(scope="module")
def spec(tiny_spec: Spec) -> Spec:
    """Trained with a batch above conformance's, for more steps than conformance looks at."""
    return tiny_spec.changed(
        model=tiny_spec.model.changed(image_size=32),
        training=tiny_spec.training.changed(batch_size=BATCH, epochs=8),
        schedule=tiny_spec.schedule.changed(reference_batch=BATCH, reference_lr=1e-3),
        data=tiny_spec.data.changed(train_images=128),
        measuring=tiny_spec.measuring.changed(loss_trace_steps=STEPS, block_steps=1, block_seconds=1e-9),
    )


@cache
def expected(spec: Spec) -> Losses:
    return compute_losses(spec, synthetic.dataset(spec), BATCH, 0)


class Timed(ReferenceBackend):
    """A faultless backend, which a fault changes in one method."""

    def late(self) -> bool:
        return self.state.step > 20


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


def trained(spec: Spec, kind: type[Timed], precision: str = "fp32", flips: bool = True) -> dict[str, Check]:
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
    return {check.name: check for check in checks}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


TRAINING_FAULTS: dict[str, tuple[type[Timed], set[str]]] = {
    "no work after step 20": (NoWork, {"golden losses", "late step, second moments"}),
    "no update after step 20": (WithoutUpdate, {"golden losses", "late step, parameters"}),
    "no clip after step 20": (NotClipped, {"late step, clip"}),
    "no decay after step 20": (NoDecay, {"late step, parameters"}),
    "beta2 0.99 after step 20": (OtherBeta2, {"late step, second moments"}),
    "moving average of weights from step 21": (MovingAverage, {"golden losses", "late step, parameters"}),
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


# --- Inference.


class Cached(Timed):
    """Batch 1 is answered with what was found first."""

    def infer(self, batch: HostBatch) -> Work:
        if len(batch.images) == 1:
            self.first = getattr(self, "first", None) or super().infer(batch)
            return self.first
        return super().infer(batch)


class RememberedByContent(Timed):
    """Answers from a memory of all images it has seen; right, but not computed."""

    computed = 0

    def infer(self, batch: HostBatch) -> Work:
        memory = self.__dict__.setdefault("memory_of_images", {})
        key = batch.images.tobytes()
        if key not in memory:
            self.computed += 1
            memory[key] = super().infer(batch)
        return memory[key]


class Memoised(Timed):
    """A batch on the device is computed once, whatever becomes of the parameters."""

    def infer(self, batch: HostBatch) -> Work:
        memo = self.__dict__.setdefault("memo", {})
        if id(batch) not in memo:
            memo[id(batch)] = (super().infer(batch), batch)
        return memo[id(batch)][0]


class PackedOnce(Timed):
    """Weights are packed at the first inference of each batch size, and never again."""

    def infer(self, batch: HostBatch) -> Work:
        packed = self.__dict__.setdefault("packed", {})
        now = self.inference_params
        self.inference_params = packed.setdefault(len(batch.images), now)
        work = super().infer(batch)
        self.inference_params = now
        return work


class FourBits(Timed):
    def infer(self, batch: HostBatch) -> Work:
        low = {"product": lambda a, b: rounded(a, 4) @ rounded(b, 4)}
        self.patches = low if len(batch.images) >= 8 else {}
        return super().infer(batch)


class SixBits(Timed):
    def infer(self, batch: HostBatch) -> Work:
        low = {"product": lambda a, b: rounded(rounded(a, 6) @ rounded(b, 6), 8)}
        self.patches = low if len(batch.images) >= 8 else {"product": bf16_product}
        return super().infer(batch)


class HalfInferred(Timed):
    def infer(self, batch: HostBatch) -> Work:
        work = super().infer(batch)
        if len(batch.images) > 4:
            half = len(batch.images) // 2
            work = Work(np.concatenate((work.value[:half], work.value[: len(batch.images) - half])), work.done_at)
        return work


class LastImageDropped(Timed):
    def infer(self, batch: HostBatch) -> Work:
        work = super().infer(batch)
        if len(batch.images) > 4:
            work = Work(np.concatenate((work.value[:-1], work.value[:1])), work.done_at)
        return work


class Shuffled(Timed):
    """Rows of large batches come back in another order."""

    def infer(self, batch: HostBatch) -> Work:
        work = super().infer(batch)
        return Work(work.value[::-1] if len(batch.images) > 4 else work.value, work.done_at)


class Averaged(Timed):
    """Inference of large batches with parameters a little off, as a moving average would have them."""

    def infer(self, batch: HostBatch) -> Work:
        now = self.inference_params
        if len(batch.images) != 4:
            self.inference_params = {name: 0.8 * value for name, value in now.items()}
        work = super().infer(batch)
        self.inference_params = now
        return work


def inferred(spec: Spec, kind: type[Timed], precision: str = "fp32") -> dict[str, Check]:
    backend, seen = _measured(spec, kind, precision)
    checks = [*timed.seen_checks(backend, spec, precision, seen)]
    sizes = [one for one in seen if one.what.startswith("batch")]
    checks += timed.program_checks(backend, spec, precision, sizes)
    return {check.name: check for check in checks}


def _measured(spec: Spec, kind: type[Timed], precision: str) -> tuple[Timed, list[Seen]]:
    backend = kind(spec, "cpu", precision, "numpy")
    backend.load_params(params.initial(spec))
    profile = spec.profiles.quick.changed(inference_max_batch=8, latency_samples=20)
    images, seen = synthetic.dataset(spec).test_images, list[Seen]()
    inference.measure_latency(backend, images, spec, profile, monotonic, witness=seen.append)
    inference.measure_inference(backend, images, spec, profile, monotonic, witness=seen.append)
    return backend, seen


INFERENCE_FAULTS: dict[str, tuple[type[Timed], str]] = {
    "batch 1 answered from a cache": (Cached, "timed logits, host to host"),
    "memoised resident batch": (Memoised, "parameters changed, batch 8"),
    "weights packed at first inference and never again": (PackedOnce, "precision, batch 8"),
    "4-bit products from batch 8": (FourBits, "timed logits, batch 8"),
    "half the rows above batch 4": (HalfInferred, "timed logits, batch 8"),
    "last image dropped above batch 4": (LastImageDropped, "timed logits, batch 8"),
    "rows in another order above batch 4": (Shuffled, "timed logits, batch 8"),
    "other parameters but at batch 4": (Averaged, "timed logits, device only"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faultless_inference_passes(spec: Spec, precision: str) -> None:
    checks = inferred(spec, Timed, precision)
    assert failed(checks) == set()
    assert len(checks) == 2 + 4 + 2 * 4


@pytest.mark.parametrize("fault", INFERENCE_FAULTS)
def test_fault_of_the_inference_fails_its_check(spec: Spec, fault: str) -> None:
    kind, meant = INFERENCE_FAULTS[fault]
    assert meant in failed(inferred(spec, kind))


def test_six_bit_operands_from_batch_8_fail_in_bf16(spec: Spec) -> None:
    assert "precision, batch 8" in failed(inferred(spec, SixBits, "bf16"))


def test_latency_always_on_image_0_fails(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    to_device = Timed.to_device

    def always_the_first(self: Timed, images: np.ndarray, targets: np.ndarray | None) -> HostBatch:
        if len(images) == 1:
            images = self.__dict__.setdefault("image_0", images)
        return to_device(self, images, targets)

    monkeypatch.setattr(Timed, "to_device", always_the_first)
    checks = failed(inferred(spec, Timed))
    assert {"timed logits, host to host", "timed logits, device only"} <= checks


def test_latency_never_asks_the_same_twice(spec: Spec) -> None:
    """Answers kept by content help nobody: every call is computed."""
    backend = RememberedByContent(spec, "cpu", "fp32", "numpy")
    backend.load_params(params.initial(spec))
    images = synthetic.dataset(spec).test_images[:3]
    profile = spec.profiles.quick.changed(latency_samples=20)
    measured = inference.measure_latency(backend, images, spec, profile, monotonic)
    calls = len(measured.host_to_host_seconds) + len(measured.device_only_seconds) + 1
    assert backend.computed == calls + sum(steps for steps, _ in measured.warmup_blocks)


def test_a_handful_is_drawn_from_all_calls() -> None:
    handfuls = [Handful(4) for _ in range(300)]
    for handful in handfuls:
        for call in range(20):
            handful.offer(call)
    kept = np.bincount([call for handful in handfuls for call in handful.kept], minlength=20)
    assert all(len(set(handful.kept)) == 4 for handful in handfuls)
    assert kept.min() > 20  # of 60 expected


# --- The others.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_of_the_ceiling_are_checked(spec: Spec, precision: str) -> None:
    class LowerProduct(Timed):
        def matmul(self, n: int) -> Work:
            a, b = self.matmul_operands(n)
            return self._dispatch(rounded(a, 5) @ rounded(b, 5))

    class NoProduct(Timed):
        def matmul(self, n: int) -> Work:
            return self._dispatch(np.zeros((n, n), np.float32))

    assert timed.product_check(Timed(spec, "cpu", precision, "numpy"), precision, 256).passed
    for kind in (LowerProduct, NoProduct):
        assert not timed.product_check(kind(spec, "cpu", precision, "numpy"), precision, 256).passed


def test_losses_of_a_tried_batch_are_in_range(spec: Spec) -> None:
    good = [math.log(100), 4.5, 4.7]

    def names(losses: list[float], norms: list[float]) -> set[str]:
        return failed({check.name: check for check in timed.range_checks(spec, losses, norms)})

    assert names(good, [1.0] * 3) == set()
    assert names([2.3, 2.3], [1.0]) == {"first loss"}
    assert names([*good, math.nan], [1.0]) == {"losses in range"}
    assert names([*good, 50.0], [1.0]) == {"losses in range"}
    assert names(good, [1.0, 0.0]) == {"losses in range"}
    assert names([], []) == {"first loss", "losses in range"}
