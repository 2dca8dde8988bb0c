"""Proof that a backend computes the specified model, gradients and updates; the same code for every platform.

A backend is driven through the Backend protocol alone and compared with the float64 reference on generated inputs, so
no data set is needed. Each check has a figure, which must not exceed its bound.

How the bounds are derived. Let u be the unit roundoff of the precision: 2^-24 for float32, 2^-8 for bfloat16. A
backward stable computation gives the exact answer for data that are off by a few u (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd edition, 2002, section 1.5). How far that moves an answer is a property of the workload, and
it is measured, not guessed: the reference computes each answer twice, once with every parameter off by a relative +u
or -u, drawn at random. What then separates the two answers is the answer's sensitivity; it holds the depth of the
network, the saturation of its softmax and the chaos of its training. Such bounds are `headroom` times a sensitivity.
The others follow from u, and their reasoning stands at their check.

What bfloat16 cannot tell: its rounding hides a tanh GELU (off by at most 5e-4) and products in TF32. The float32
conformance of the same platform does tell, and the model's source is the same.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Handle
from shared_spec.conformance.error_measures import METRICS, SIGNIFICAND_BITS, projections, relative_error, unit_roundoff
from shared_spec.conformance.golden import Golden, golden
from shared_spec.conformance.questions import (
    BATCH,
    KEY_BIASES,
    QUESTIONS,
    BackendSubject,
    answers,
    large_weights,
    learning_rates,
    probe_batch,
)
from shared_spec.measure.clock import Clock, monotonic
from shared_spec.measure.timing import Progress, silent
from shared_spec.results.quantities import Check, finite
from shared_spec.workload import params, reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec


def check(name: str, figure: float, bound: float, detail: str) -> Check:
    """Passed when `figure` (NaN where there is none) does not exceed `bound`; `detail` says of what."""
    passed, value = bool(figure <= bound), finite(float(figure))
    return Check(name=name, passed=passed, figure=value, bound=float(bound), detail=detail)


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
    checks.append(_check_preprocess(backend, spec, precision))
    checks += _check_answers(backend, spec, precision, expected, progress)
    checks += [_check_weight_decay(backend, spec), _check_adamw(backend, spec)]
    checks += _check_precision(backend, spec, precision)
    progress(0.95, "synchronize")
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


def _check_preprocess(backend: Backend, spec: Spec, precision: str) -> Check:
    """Normalised and upscaled pixels against float64, in units of the data's standard deviation.

    Roundings, each at most u of the value it makes: pixel / 255, the mean, their difference (values below 1, then
    divided by std): 3 u / std. The std, the quotient: 2 u X, with X the largest result. Each of the two products with
    the interpolation matrix rounds both operands, the product and its sum of two, and the result: 5 u X.
    """
    images = probe_batch(spec, 0).images.copy()
    images[0], images[1] = 0, 255
    exact = reference.preprocess(spec, images, np.dtype(np.float64))
    pixels = backend.to_numpy(backend.preprocess(backend.to_device(images, None)))
    largest = float(np.max(np.abs(exact)))
    bound = (3 / min(spec.data.std) + 12 * largest) * unit_roundoff(precision)
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
        progress(0.9 * done / QUESTIONS, text)
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


def headroom(spec: Spec, precision: str) -> float:
    """How many times the sensitivity a correct backend may be off.

    The sensitivity is that to one rounding of each of a block's 4 matrices. A backend rounds more, and each time
    independently, so that the effects add up as squares.

    bf16: some 20 roundings in a block (operands and results of 6 products, 2 normalisations, GELU, softmax, 2 sums)
    make sqrt(20 / 4) = 2.2; 4 leaves a margin. Sums are to be made in float32 and then count for nothing.

    fp32: the sums themselves are rounded. Adding K terms in order is off by u * sqrt(K / 2) of the result, as the sum
    of the first k has size sqrt(k) (for the root see Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019). With K the
    workload's longest sum and 6 products in a block: sqrt(6 / 4 * K / 2). Backends that add in blocks stay far below.
    """
    if precision == "bf16":
        return 4.0
    m = spec.model
    return math.sqrt(0.75 * max(m.channels * m.patch_size**2, m.dim, m.mlp_dim, BATCH * m.tokens))


def norm_rounding(spec: Spec) -> float:
    """Relative error of the gradient norm that a correct backend may make, and with it of all clipped gradients.

    It is by far the longest sum, over all n parameters where a backend keeps them in one vector. Adding n squares in
    order, each partial sum of k off by u * k / n of the result, is off by u * sqrt(n / 3), and the root of the sum by
    half of that; the other half is margin. No perturbation of parameters shows it.
    """
    return math.sqrt(params.count(spec) / 3) * unit_roundoff("fp32")


def _group_check(name: str, spec: Spec, values: Params, expected: Golden, bounds: np.ndarray) -> Check:
    errors = {}
    for i, (parameter, shape) in enumerate(params.shapes(spec).items()):
        errors[parameter] = math.inf
        if parameter in values and values[parameter].shape == shape:
            difference = projections(parameter, values[parameter]) - expected[f"{name}/projections"][i]
            errors[parameter] = float(np.sqrt(np.mean(difference**2)) / expected[f"{name}/norms"][i])
    return _worst(name, errors, dict(zip(errors, map(float, bounds), strict=True)))


def _worst(name: str, errors: dict[str, float], bounds: dict[str, float]) -> Check:
    """A check of every parameter, as that of the one whose error is largest in proportion to its bound."""
    ratios = {parameter: error / bounds[parameter] for parameter, error in errors.items()}
    worst = max(ratios, key=lambda parameter: math.inf if math.isnan(ratios[parameter]) else ratios[parameter])
    detail = f"relative error (L2) of {worst}, the worst of all parameters"
    return check(name, errors[worst], bounds[worst], detail)


def _key_bias_check(spec: Spec, updates: np.ndarray) -> Check:
    """Biases of attention keys may move by no more than AdamW's largest steps: questions.pop_key_bias says why."""
    figure = float(np.max(np.abs(updates))) / sum(learning_rates(spec))
    detail = "largest update, in units of the sum of learning rates; any such update is noise"
    return check(KEY_BIASES, figure, key_bias_bound(spec), detail)


def key_bias_bound(spec: Spec) -> float:
    """AdamW's largest step by the learning rate (Kingma and Ba, arXiv 1412.6980, section 2.1)."""
    o = spec.optimizer
    return max(1.0, (1 - o.beta1) / math.sqrt(1 - o.beta2))


# --- The optimiser alone.


def _check_weight_decay(backend: Backend, spec: Spec) -> Check:
    """One step in which decay is all that moves a parameter.

    With weight and bias of the last LayerNorm zero, the gradients of all but these two and head.bias are exactly zero
    at any precision, and so are AdamW's moments. What is left is p - lr * decay * p, in float32: at most 4 roundings,
    none larger than 2 u of what it leaves, as the learning rate is chosen to halve the decayed parameters.
    """
    o, norm = spec.optimizer, ("norm.weight", "norm.bias")
    before = large_weights(spec)
    before |= {name: np.zeros_like(before[name]) for name in norm}
    lr = 0.5 / o.weight_decay if o.weight_decay else 1.0
    backend.load_params(before)
    BackendSubject(backend).step(probe_batch(spec, 0), lr)
    after = backend.export_params()
    errors = {}
    for name, value in before.items():
        if name not in (*norm, "head.bias"):
            decay = o.weight_decay if params.has_decay(name, value.shape) else 0.0
            errors[name] = relative_error(after[name], value.astype(np.float64) * (1 - lr * decay))
    return _worst("weight decay", errors, dict.fromkeys(errors, 8 * unit_roundoff("fp32")))


def _check_adamw(backend: Backend, spec: Spec) -> Check:
    """The first update, against what the backend's own moments demand; so free of the gradients' errors.

    The targets are nearly flat and the gradients small, so that eps shows. About 10 roundings to float32 make the
    step, 3 more its sum with the decayed parameter, each of up to u of the parameter.
    """
    lr, u = max(learning_rates(spec)), unit_roundoff("fp32")
    before = params.initial(spec)
    backend.load_params(before)
    BackendSubject(backend).step(probe_batch(spec, 1), lr)
    after = {key: value.astype(np.float64) for key, value in backend.export_state().items()}
    errors, bounds = {}, {}
    for name, value in before.items():
        p, m, v = value.astype(np.float64), after[f"m/{name}"], after[f"v/{name}"]
        step = reference.updated(spec.optimizer, name, p, m, v, 1, lr) - p
        errors[name] = relative_error(after[f"param/{name}"] - p, step)
        bounds[name] = (10 + 3 * float(np.linalg.norm(p) / np.linalg.norm(step))) * u
    return _worst("AdamW", errors, bounds)


# --- The precision of products.


def _check_precision(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """Bits that matrix products keep: 24 in float32, 11 in TF32 and float16, 8 in bfloat16.

    In training they are read off the gradient of head.weight, an outer product with norm.bias. As the gradients
    themselves are rounded, twice at most in the ratio of two of them, the last 3 bits do not show.
    """
    batch = probe_batch(spec, 0)
    yield inference_bits(backend, spec, precision, batch.images, "precision, inference")
    exponents, wanted = _exponents(spec, precision)
    n = len(exponents)
    on_device = backend.to_device(batch.images, batch.targets)
    gradient = backend.gradients(on_device)["head.weight"].astype(np.float64)
    row = gradient[np.argmax(np.abs(gradient[:, 0]))]
    ratio = row[1 : n + 1] / row[0] - 1
    trained = 1 + _leading(np.abs(ratio - 2.0**-exponents) < 0.5 * 2.0**-exponents)
    detail = f"bits off {wanted}: matrix products keep {trained} bits or up to 3 more of an activation"
    yield check("precision, training", abs(trained - wanted), 3, detail)


def _exponents(spec: Spec, precision: str) -> tuple[np.ndarray, int]:
    """The bits that are asked after, and how many of them are to be kept."""
    exponents = np.arange(1, min(SIGNIFICAND_BITS["fp32"], spec.model.dim - 1))
    return exponents, min(SIGNIFICAND_BITS[precision], len(exponents) + 1)


def inference_bits(backend: Backend, spec: Spec, precision: str, images: np.ndarray, name: str) -> Check:
    """Bits that the products of inference keep, at the batch size of `images`; the backend gets other parameters."""
    exponents, wanted = _exponents(spec, precision)
    n = len(exponents)
    backend.load_params(_significand_weights(spec, exponents))
    logits = backend.to_numpy(backend.infer(backend.to_device(images, None)))
    kept = np.all(logits[:, : 2 * n] == 2.0 ** -np.tile(exponents, 2), axis=0)
    bits = [1 + _leading(kept[:n]), 1 + _leading(kept[n:])]
    detail = f"bits off {wanted}: matrix products keep {bits[0]} bits of a weight and {bits[1]} of an activation"
    return check(name, max(abs(b - wanted) for b in bits), 0, detail)


def _significand_weights(spec: Spec, exponents: np.ndarray) -> Params:
    """Parameters whose logits show how many bits matrix products keep of their operands.

    With norm.weight zero the head's input is norm.bias, whatever the image. Logit i is (1 + 2^-e) * 1 - 1 * 1 with e
    the i-th exponent: 2^-e where the operand keeps the last bit of 1 + 2^-e, and something else where it is rounded.
    All sums are exact. The operand is a weight in the first half of the logits, and an activation in the second.
    """
    values, n = params.initial(spec), len(exponents)
    values |= {name: np.zeros_like(values[name]) for name in ("norm.weight", "norm.bias", "head.weight", "head.bias")}
    features, head, rows = values["norm.bias"], values["head.weight"], np.arange(n)
    features[0] = features[n + 1] = 1
    features[1 : n + 1] = 1 + 2.0**-exponents
    head[rows, 0], head[rows, n + 1] = 1 + 2.0**-exponents, -1
    head[n + rows, 1 + rows], head[n + rows, 0] = 1, -1
    return values


def _leading(true: np.ndarray) -> int:
    """How many elements come before the first False."""
    return int(np.argmin(np.append(true, False)))


# --- The clock's premise: `synchronize` waits.


MIN_WORK = 0.05
"""Seconds of work that is queued before `synchronize` is tried: long beside a transfer of the result."""
WAIT_BOUND = 0.1
"""Largest share of the work that may seem left; what is seen beyond is not the jitter of two reads."""
ATTEMPTS = 5
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
    while not enough:
        start = clock()
        backend.to_numpy(queue(count))
        seconds = clock() - start
        enough = bool(ranks.decided(group, seconds >= MIN_WORK))
        count *= 1 if enough else 2
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
