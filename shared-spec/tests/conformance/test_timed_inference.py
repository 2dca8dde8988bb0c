"""The inference that is timed is the one that is proved: each planted fault fails the check meant for it."""

import numpy as np
import pytest
from reference_backend import Work, bf16_product, rounded
from timed_backend import Timed, failed

from shared_spec.conformance import timed
from shared_spec.data import synthetic
from shared_spec.data.batches import HostBatch
from shared_spec.measure import inference
from shared_spec.measure.clock import monotonic
from shared_spec.measure.timed_calls import Reservoir, TimedCalls
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


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


def inferred(spec: Spec, kind: type[Timed], precision: str = "fp32") -> list[Check]:
    backend, seen = _measured(spec, kind, precision)
    checks = [*timed.timed_calls_checks(backend, spec, precision, seen)]
    sizes = [one for one in seen if one.what.startswith("batch")]
    checks += timed.program_checks(backend, spec, precision, sizes)
    return checks


def _measured(spec: Spec, kind: type[Timed], precision: str) -> tuple[Timed, list[TimedCalls]]:
    backend = kind(spec, "cpu", precision, "numpy")
    backend.load_params(params.initial(spec))
    profile = spec.profiles.quick.changed(inference_max_batch=8, latency_samples=20)
    images, seen = synthetic.dataset(spec).test_images, list[TimedCalls]()
    inference.measure_latency(backend, images, spec, profile, monotonic, observer=seen.append)
    inference.measure_inference(backend, images, spec, profile, monotonic, observer=seen.append)
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
    handfuls = [Reservoir(4) for _ in range(300)]
    for handful in handfuls:
        for call in range(20):
            handful.offer(call)
    kept = np.bincount([call for handful in handfuls for call in handful.kept], minlength=20)
    assert all(len(set(handful.kept)) == 4 for handful in handfuls)
    assert kept.min() > 20  # of 60 expected
