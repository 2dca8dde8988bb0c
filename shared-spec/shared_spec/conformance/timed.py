"""Proof that what was timed is what conformance proves: outputs of timed calls, looked at when nothing is timed any more.

Bounds follow from the same sensitivities as those of checks.py; their derivation stands in bounds.py.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from shared_spec.backend import Backend
from shared_spec.conformance import golden
from shared_spec.conformance.bounds import check, headroom, norm_rounding
from shared_spec.conformance.error_measures import relative_error, unit_roundoff
from shared_spec.conformance.losses import FIGURES, Losses
from shared_spec.conformance.optimizer import step_checks
from shared_spec.conformance.precision import inference_bits
from shared_spec.conformance.probes import BATCH, large_weights
from shared_spec.data.batches import HostBatch
from shared_spec.measure.timed_calls import TimedCalls
from shared_spec.measure.timing import Progress, silent
from shared_spec.results.measurements import Convergence
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

# --- Training: the losses of the timed steps, and one more step behind them.

NAMES = {"loss": "golden losses", "norm": "golden gradient norms"}


def losses_checks(
    spec: Spec, precision: str, expected: Losses, found: Mapping[str, Sequence[float | None]], world_size: int = 1
) -> Iterator[Check]:
    """The first losses and gradient norms of a training against those of the reference on the same batches.

    Two trainings that differ by roundings drift apart, and the more the longer they take: the bound of a step is
    headroom times the largest sensitivity up to it. The check's figure is that of the step nearest to its bound.

    Args:
        found: by name (losses.FIGURES), of as many steps as were made; None where one was not finite.
    """
    for figure in FIGURES:
        if values := found.get(figure):
            yield _trace_check(spec, precision, figure, expected, values, world_size)


def _trace_check(
    spec: Spec, precision: str, figure: str, expected: Losses, values: Sequence[float | None], world_size: int
) -> Check:
    count = min(len(values), len(expected[f"{figure}/value"]))
    exact = expected[f"{figure}/value"][:count]
    sensitivity = np.maximum.accumulate(expected[f"{figure}/{precision}"].max(0))[:count]
    per_step = norm_rounding(spec) + (world_size - 1) * unit_roundoff("fp32")
    bounds = headroom(spec, precision) * np.maximum(sensitivity, unit_roundoff("fp32")) + per_step
    errors = np.abs(np.array([math.nan if value is None else value for value in values[:count]]) / exact - 1)
    ratios = np.where(np.isnan(errors), np.inf, errors / bounds)
    worst = int(np.argmax(ratios))
    detail = f"relative error of step {worst + 1}, the worst of {count} by its bound"
    return check(NAMES[figure], float(errors[worst]), float(bounds[worst]), detail)


def late_step_checks(backend: Backend, spec: Spec, batch: HostBatch, lr: float) -> Iterator[Check]:
    """One more training step after all that were timed: does it still do everything?"""

    def step() -> tuple[float, float]:
        on_device = backend.to_device(batch.images, batch.targets)
        loss, norm = map(float, backend.to_numpy(backend.train_step(on_device, lr)))
        return loss, norm

    return step_checks("late step", backend, spec, step, lr)


# --- Inference: what timed calls answered, against batches of 4.


class Proven:
    """Logits of any images from the program that conformance proves: the one for batches of 4."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [N,classes] of uint8 [N,S,S,3]; each image is asked for once."""
        keys = [image.tobytes() for image in images]
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        asked = list(missing.items())
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            batch = np.stack([part[i % len(part)][1] for i in range(BATCH)])
            logits = self.backend.to_numpy(self.backend.infer(self.backend.to_device(batch, None)))
            self._known |= {key: row for (key, _), row in zip(part, logits, strict=False)}
        return np.stack([self._known[key] for key in keys])


def logits_bound(spec: Spec, precision: str) -> float:
    """How far two programs' logits may be apart: each is off by headroom times their sensitivity to roundings."""
    return 2 * headroom(spec, precision) * max(golden.logits_sensitivity(spec, precision), unit_roundoff(precision))


def timed_calls_checks(
    backend: Backend, spec: Spec, precision: str, seen: Iterable[TimedCalls], progress: Progress = silent
) -> Iterator[Check]:
    """What timed calls answered, against the batch-4 path; the backend must still have the parameters of then."""
    proven, bound = Proven(backend), logits_bound(spec, precision)
    for what, group in _by_name(seen).items():
        progress(0.95, f"looking at {what}")
        errors = [_row_errors(one.logits, proven(one.images)) for one in group]
        count = sum(len(one.images) for one in group)
        detail = f"largest error of an image's logits, of {count}, by the size (L2) of such logits at batch {BATCH}"
        yield check(f"timed logits, {what}", float(np.max(np.concatenate(errors))), bound, detail)


def _by_name(seen: Iterable[TimedCalls]) -> dict[str, list[TimedCalls]]:
    groups: dict[str, list[TimedCalls]] = {}
    for one in seen:
        groups.setdefault(one.what, []).append(one)
    return groups


def _row_errors(logits: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """L2 norm of each row's error, by the root mean square of the rows' norms; inf for what is no number."""
    if logits.shape != exact.shape:
        return np.array([math.inf])
    size = math.sqrt(float((exact.astype(np.float64) ** 2).sum()) / len(exact))
    errors = np.linalg.norm(logits.astype(np.float64) - exact, axis=1) / max(size, 1e-300)
    return np.where(np.isfinite(errors), errors, np.inf)


def program_checks(backend: Backend, spec: Spec, precision: str, seen: Iterable[TimedCalls]) -> Iterator[Check]:
    """The timed programs again, with other parameters: nothing packed, memoised or rounded further is left over.

    Of each size: the bits that its products keep, and the logits of large weights against the batch-4 path. The
    backend ends with other parameters.
    """
    groups = {what: group[-1].images for what, group in _by_name(seen).items()}
    for what, images in groups.items():
        yield inference_bits(backend, spec, precision, images, f"precision, {what}")
    on_device = {what: backend.to_device(images, None) for what, images in groups.items()}
    backend.load_params(params.initial(spec))
    for batch in on_device.values():
        backend.infer(batch)
    backend.load_params(large_weights(spec))
    proven, bound = Proven(backend), logits_bound(spec, precision)
    for what, batch in on_device.items():
        errors = _row_errors(backend.to_numpy(backend.infer(batch)), proven(groups[what]))
        detail = "largest error of an image's logits after other parameters were loaded"
        yield check(f"parameters changed, {what}", float(np.max(errors)), bound, detail)


# --- A batch size that was only tried, the ceiling, the evaluation.


def range_checks(spec: Spec, losses: Sequence[float], norms: Sequence[float]) -> Iterator[Check]:
    """Losses of a few steps from the initial weights: finite, at first near ln C, and never far above.

    The loss of one image lies within twice the largest logit of ln C, whatever its target; the logits of initial
    weights are known from conformance's probes, and others are allowed twice their size.
    """
    uniform = math.log(spec.model.classes)
    off = abs(losses[0] - uniform) if losses and math.isfinite(losses[0]) else math.inf
    yield check("first loss", off, first_loss_bound(spec), "distance of the first step's loss from ln(classes)")
    usable = all(map(math.isfinite, [*losses, *norms])) and min(norms, default=0) > 0
    worst = max(losses, default=math.inf) if usable and min(losses, default=0) > 0 else math.inf
    yield check("losses in range", worst, losses_in_range_bound(spec), f"largest loss of {len(losses)} steps")


def first_loss_bound(spec: Spec) -> float:
    """How far the first loss may be from ln C."""
    return 4 * golden.largest_initial_logit(spec)


def losses_in_range_bound(spec: Spec) -> float:
    """The largest loss of a few steps from the initial weights."""
    return 2 * math.log(spec.model.classes) + first_loss_bound(spec)


PRODUCT_ROWS = 16


def product_check(backend: Backend, precision: str, n: int) -> Check:
    """Sampled rows of one of the ceiling's products, against NumPy in float64; the operands are as the device has them."""
    a, b = (operand.astype(np.float64) for operand in backend.matmul_operands(n))
    rows = np.sort(np.random.default_rng().choice(n, min(n, PRODUCT_ROWS), replace=False))
    found = backend.to_numpy(backend.matmul(n))
    error = relative_error(found[rows], a[rows] @ b) if found.shape == (n, n) else math.inf
    return check(
        "product",
        error,
        product_bound(precision, n),
        f"relative error (L2) of {len(rows)} rows, drawn at random, of {n} x {n}",
    )


def product_bound(precision: str, n: int) -> float:
    """Adding n terms in order is off by u sqrt(n / 2) (headroom), and in bf16 the result is rounded once more."""
    return unit_roundoff("fp32") * math.sqrt(n / 2) + (unit_roundoff("bf16") if precision == "bf16" else 0.0)


def evaluation_check(spec: Spec, measured: Convergence) -> Check:
    """Every evaluation saw all test images, and its accuracy is what the counts of the classes say."""
    images = measured.class_images or ()
    wrong = [
        row.step
        for row in measured.evaluations
        if row.class_right is None
        or sum(images) != spec.data.test_images
        or any(right > count for right, count in zip(row.class_right, images, strict=True))
        or abs(sum(row.class_right) / sum(images) - row.top1) > 1e-9
    ]
    detail = f"of {len(measured.evaluations)} evaluations those whose accuracy is not that of their counts by class"
    return check("evaluation", len(wrong), 0, detail)
