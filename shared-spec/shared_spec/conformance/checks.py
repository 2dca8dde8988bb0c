"""Proof that a backend computes the specified model, gradients and updates; the same code for every platform.

A backend is driven through the Backend protocol alone and compared with the float64 reference on generated inputs, so
no data set is needed. Each check has a figure, which must not exceed its bound.

How bounds are derived stands in bounds.py.

What bfloat16 cannot tell: its rounding hides a tanh GELU (off by at most 5e-4) and products in TF32. The float32
conformance of the same platform does tell, and the model's source is the same.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Handle
from shared_spec.conformance.bounds import check, headroom, norm_rounding, worst
from shared_spec.conformance.error_measures import METRICS, projections, unit_roundoff
from shared_spec.conformance.golden import Golden, golden
from shared_spec.conformance.optimizer import check_adamw, check_second_step, check_weight_decay
from shared_spec.conformance.order import order_checks
from shared_spec.conformance.precision import precision_checks
from shared_spec.conformance.probes import (
    KEY_BIASES,
    TICKS,
    BackendSubject,
    answers,
    large_weights,
    learning_rates,
    probe_batch,
)
from shared_spec.measure.clock import Clock, monotonic
from shared_spec.measure.timing import Progress, silent
from shared_spec.results.quantities import Check
from shared_spec.workload import params, reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec


def run_checks(
    backend: Backend, spec: Spec, precision: str, progress: Progress = silent, clock: Clock = monotonic
) -> list[Check]:
    """Put all checks to a backend; it ends with other parameters than it began with.

    With several ranks all of them do this in step, and one more check says whether all passed and remained identical.

    Args:
        precision: "fp32" or "bf16", as the backend was built with.
        clock: read by the proof that `synchronize` waits, and by nothing else.
    """
    expected = golden(spec, progress)
    progress(0.0, "parameters")
    checks = _check_parameters(backend, spec)
    if not all(check.passed for check in checks):
        return checks  # nothing can be compared under other names
    checks.append(_check_preprocess(backend, spec))
    checks += _check_answers(backend, spec, precision, expected, progress)
    progress(0.9, "infer, train, infer")
    checks += order_checks(backend, spec, precision)
    progress(0.92, "optimiser")
    checks += [check_weight_decay(backend, spec), check_adamw(backend, spec), *check_second_step(backend, spec)]
    progress(0.94, "precision")
    checks += precision_checks(backend, spec, precision)
    progress(0.96, "synchronize")
    checks += _check_synchronize(backend, spec, clock)
    return [*checks, _check_ranks(backend, checks)] if backend.group.size > 1 else checks


def _check_parameters(backend: Backend, spec: Spec) -> list[Check]:
    loaded, shapes = large_weights(spec), params.shapes(spec)
    backend.load_params(loaded)
    exported = backend.export_params()
    wrong = [
        name
        for name in shapes.keys() | exported.keys()
        if name not in shapes or name not in exported or exported[name].shape != shapes[name]
    ]
    if wrong:
        return [check("parameters", len(wrong), 0, f"names or shapes that differ: {', '.join(sorted(wrong)[:5])}")]
    values = sum(value.size for value in exported.values())
    changed = sum(int(np.sum(exported[name] != value)) for name, value in loaded.items())
    return [
        check("parameters", abs(values - params.count(spec)), 0, f"{values:,} values under {len(shapes)} names"),
        check("load and export", changed, 0, "values that loading and exporting changed"),
    ]


def _check_preprocess(backend: Backend, spec: Spec) -> Check:
    """Normalised and upscaled pixels against float64, in units of the data's standard deviation: float32 in bf16 too.

    Roundings, each at most u of the value it makes: pixel / 255, the mean, their difference (values below 1, then
    divided by std): 3 u / std. The std, the quotient: 2 u X, with X the largest result. Each of the two products with
    the interpolation matrix rounds both operands, the product and its sum of two, and the result: 5 u X.
    """
    images = probe_batch(spec, 0).images.copy()
    images[0], images[1] = 0, 255
    exact = reference.preprocess(spec, images, np.dtype(np.float64))
    pixels = backend.to_numpy(backend.preprocess(backend.to_device(images, None)))
    largest = float(np.max(np.abs(exact)))
    bound = (3 / min(spec.data.std) + 12 * largest) * unit_roundoff("fp32")
    error = float(np.max(np.abs(pixels - exact))) if pixels.shape == exact.shape else math.inf
    return check("preprocess", error, bound, f"largest error of a pixel, among values up to {largest:.2f}")


# --- The reference's answers.


def _check_answers(
    backend: Backend, spec: Spec, precision: str, expected: Golden, progress: Progress
) -> Iterator[Check]:
    """The answers that the reference has given as well."""
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        progress(0.9 * done / TICKS, text)
        done += 1

    for name, answer in answers(BackendSubject(backend), spec, tick):
        if name == KEY_BIASES:
            yield _key_bias_check(spec, np.asarray(answer))
            continue
        bounds = answer_bounds(name, spec, precision, expected[f"{name}/{precision}"], backend.group.size)
        if isinstance(answer, np.ndarray):
            metric, detail = METRICS[name]
            yield check(name, metric(answer.astype(np.float64), expected[f"{name}/value"]), float(bounds), detail)
        else:
            yield _group_check(name, spec, answer, expected, bounds)


def answer_bounds(name: str, spec: Spec, precision: str, sensitivity: np.ndarray, world_size: int) -> np.ndarray:
    """Bound of each relative error: no answer is better than its own rounding, and a trace follows the clipping.

    A trace of several ranks follows the averaging of their gradients as well: at most one float32 rounding for each
    rank after the first, of partial sums that are no larger than the sum of sizes.
    """
    in_float32 = name in ("trace, loss", "trace, gradient norm", "trace, learning rate")
    rounding = unit_roundoff("fp32" if in_float32 else precision)
    per_gradient = norm_rounding(spec) + (world_size - 1) * unit_roundoff("fp32")
    per_trace = per_gradient * name.startswith("trace") * (2 if name == "trace, second moments" else 1)
    return np.asarray(headroom(spec, precision) * np.maximum(sensitivity, rounding) + per_trace)


def _group_check(name: str, spec: Spec, values: Params, expected: Golden, bounds: np.ndarray) -> Check:
    errors = {}
    for i, (parameter, shape) in enumerate(params.shapes(spec).items()):
        errors[parameter] = math.inf
        if parameter in values and values[parameter].shape == shape:
            difference = projections(parameter, values[parameter]) - expected[f"{name}/projections"][i]
            errors[parameter] = float(np.sqrt(np.mean(difference**2)) / expected[f"{name}/norms"][i])
    return worst(name, {key: (error, float(bound)) for (key, error), bound in zip(errors.items(), bounds, strict=True)})


def _key_bias_check(spec: Spec, updates: np.ndarray) -> Check:
    """Biases of attention keys may move by no more than AdamW's largest steps: probes.pop_key_bias says why."""
    figure = float(np.max(np.abs(updates))) / sum(learning_rates(spec))
    detail = "largest update, in units of the sum of learning rates; any such update is noise"
    return check(KEY_BIASES, figure, key_bias_bound(spec), detail)


def key_bias_bound(spec: Spec) -> float:
    """AdamW's largest step by the learning rate (Kingma and Ba, arXiv 1412.6980, section 2.1)."""
    o = spec.optimizer
    return max(1.0, (1 - o.beta1) / math.sqrt(1 - o.beta2))


# --- The clock's premise: `synchronize` waits.


MIN_WORK = 0.05
"""Seconds of work that is queued before `synchronize` is tried: long beside a transfer of the result."""
WAIT_BOUND = 0.1
"""Largest share of the work that may seem left; what is seen beyond is not the jitter of two reads."""
ATTEMPTS = 5
MOST_DISPATCHES = 2**14
"""No device has done so many in less than MIN_WORK: answers are then remembered, not computed."""
MATMUL_SIZE = 1024


def _check_synchronize(backend: Backend, spec: Spec, clock: Clock) -> Iterator[Check]:
    """Whether `synchronize` returns no sooner than the work is done, for each kind of work that is timed."""
    backend.load_params(params.initial(spec))
    host = probe_batch(spec, 0)
    batch = backend.to_device(host.images, host.targets)
    kinds: dict[str, Callable[[], Handle]] = {
        "training steps": lambda: backend.train_step(batch, 0.0),
        "inference": lambda: backend.infer(batch),
        "matrix products": lambda: backend.matmul(MATMUL_SIZE),
    }
    for kind, dispatch in kinds.items():
        yield _check_waits(kind, backend, dispatch, clock)


def _check_waits(kind: str, backend: Backend, dispatch: Callable[[], Handle], clock: Clock) -> Check:
    """The share of the work that was still to do when `synchronize` returned.

    A read of the result waits for whatever is left, and then copies; a second read only copies. The difference of
    the two is what was left. A machine that is busy elsewhere may hold up one read, so the best of a few counts.
    Ranks go through the same dispatches: rank 0's clock decides how many there are.
    """
    group = backend.group

    def queue(count: int) -> Handle:
        for _ in range(count - 1):
            dispatch()
        return dispatch()

    backend.to_numpy(dispatch())  # compiles
    count, seconds, enough = 1, 0.0, False
    while not enough and count <= MOST_DISPATCHES:
        start = clock()
        backend.to_numpy(queue(count))
        seconds = clock() - start
        enough = bool(ranks.decided(group, seconds >= MIN_WORK))
        count *= 1 if enough else 2
    if not enough:
        detail = f"{MOST_DISPATCHES:,} dispatches took {1e3 * seconds:.3g} ms: nothing computes so fast"
        return check(f"synchronize, {kind}", math.nan, WAIT_BOUND, detail)
    shares, dispatched = [], []
    for _ in range(ATTEMPTS):
        start = clock()
        handle = queue(count)
        dispatched.append(clock() - start)
        backend.synchronize(handle)
        synchronized = clock()
        backend.to_numpy(handle)
        first_read = clock()
        backend.to_numpy(handle)
        second_read = clock()
        left = (first_read - synchronized) - (second_read - first_read)
        shares.append(max(0.0, left) / (first_read - start))
        if max(ranks.gathered_values(group, min(shares))) <= WAIT_BOUND:
            break
    detail = f"share left of {count} dispatches in {1e3 * dispatched[-1]:.3g} of {1e3 * seconds:.3g} ms"
    return check(f"synchronize, {kind}", min(shares), WAIT_BOUND, detail)


# --- Several ranks.


def _check_ranks(backend: Backend, checks: list[Check]) -> Check:
    """Ranks that failed a check of their own, or whose parameters after all steps are not rank 0's, bit for bit."""
    passed = all(check.passed for check in checks)
    reports = ranks.gathered_values(backend.group, [passed, params.fingerprint(backend.export_params())])
    wrong = [rank for rank, (fine, checksum) in enumerate(reports) if not fine or checksum != reports[0][1]]
    detail = f"ranks of {backend.group.size} that failed a check or differ from rank 0" + f": {wrong}" * bool(wrong)
    return check("ranks", len(wrong), 0, detail)
