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

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import click
import numpy as np
import safetensors.numpy

from shared_spec import jsonio, parallel, params, reference
from shared_spec.backend import Backend, Batch, Handle
from shared_spec.batches import HostBatch, random_bits, soft_targets
from shared_spec.harness import Clock, Progress, monotonic, silent
from shared_spec.params import Params
from shared_spec.spec import PRECISIONS, Spec, load_spec

SIGNIFICAND_BITS = {"fp32": 24, "bf16": 8}
"""With the implicit leading one (IEEE 754; bfloat16 is the upper half of a binary32)."""

GOLDEN_FORMAT = 1
"""To be raised with every change of the inputs below or of the reference's answers."""
GOLDEN_FOLDER = Path(__file__).parent / "golden"

SEED = 3
BATCH = 4
STEPS = 20
PROJECTIONS = 8
"""Random-sign projections kept of each parameter's array: one for each bit of a byte."""


@dataclass(frozen=True)
class Check:
    """One proof: passed when `figure` (NaN where there is none) does not exceed `bound`; `detail` says of what."""

    name: str
    passed: bool
    figure: float
    bound: float
    detail: str


def _check(name: str, figure: float, bound: float, detail: str) -> Check:
    return Check(name, bool(figure <= bound), float(figure), float(bound), detail)


def unit_roundoff(precision: str) -> float:
    """Largest relative error of rounding to nearest at this precision."""
    return 2.0 ** -SIGNIFICAND_BITS[precision]


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


# --- Inputs: made of raw Philox bits, so the same on every machine. ---


def _bits(label: str, count: int) -> np.ndarray:
    """uint64 [count] of the random stream that `label` names."""
    index = int.from_bytes(hashlib.sha256(label.encode()).digest()[:6], "little")
    return random_bits(SEED, "probe", index, count)


def _bytes(label: str, count: int) -> np.ndarray:
    """uint8 [count] of the random stream that `label` names."""
    return _bits(label, -(-count // 8)).view(np.uint8)[:count]


def _uniform(label: str, shape: tuple[int, ...], rms: float) -> np.ndarray:
    """float32 of mean zero and root mean square `rms`, evenly spread."""
    unit = (_bits(label, math.prod(shape)) >> np.uint64(11)) * 2.0**-53
    return ((2 * unit - 1) * math.sqrt(3) * rms).astype(np.float32).reshape(shape)


def _batch(spec: Spec, step: int) -> HostBatch:
    """BATCH images of noise, with targets that are sharp in even steps and nearly flat in odd ones.

    Gradients of even steps are therefore several times those of odd ones, so that AdamW, which does not see the
    scale of all gradients together, does see whether each step was clipped.
    """
    side = spec.data.image_size
    images = _bytes(f"images {step}", BATCH * side * side * 3).reshape(BATCH, side, side, 3)
    labels = (_bits(f"labels {step}", BATCH) % np.uint64(spec.model.classes)).astype(np.intp)
    smoothing = 0.95 if step % 2 else spec.data.label_smoothing
    return HostBatch(images, soft_targets(labels, spec.model.classes, smoothing))


def _large(spec: Spec) -> Params:
    """Weights so large that every product, LayerNorm and bias counts.

    A matrix multiplies the size of its input by 1.6: attention scores are spread by 1.6^2 = 2.6, so that softmax
    saturates, and GELU's inputs reach both its tails.
    """
    values: Params = {}
    for name, shape in params.shapes(spec).items():
        if params.has_decay(name, shape):
            values[name] = _uniform(name, shape, 1.6 / math.sqrt(math.prod(shape[1:])))
        elif len(shape) > 1:
            values[name] = _uniform(name, shape, 1.0)
        else:
            values[name] = _uniform(name, shape, 0.3) + np.float32(name.endswith("weight"))
    return values


def _small_variance(spec: Spec) -> Params:
    """The large weights, but all that is added to the residual stream shrunk by sqrt(eps).

    LayerNorm undoes such a factor, were it not for its eps, which now is of the variance's own size.
    """
    factor = np.float32(math.sqrt(spec.model.layer_norm_eps))
    writers = ("cls_token", "pos_embed", "patch_embed.proj", "attn.proj", "mlp.fc2")
    values = _large(spec)
    return {name: v * factor if any(writer in name for writer in writers) else v for name, v in values.items()}


CASES: dict[str, Callable[[Spec], Params]] = {
    "initial weights": params.initial,
    "large weights": _large,
    "small variance": _small_variance,
}


def _learning_rates(spec: Spec) -> list[float]:
    """The schedule over STEPS steps of BATCH images: a quarter of them warm-up, and the peak of the reference batch."""
    short = dataclasses.replace(
        spec,
        training=dataclasses.replace(spec.training, epochs=1),
        data=dataclasses.replace(spec.data, train_images=STEPS * BATCH),
        schedule=dataclasses.replace(spec.schedule, reference_batch=BATCH, warmup_fraction=0.25),
    )
    return [short.learning_rate(step, BATCH) for step in range(STEPS)]


# --- Questions: put alike to the reference and to a backend. ---


class Subject(Protocol):
    """What is asked: a model with its optimiser."""

    def load(self, values: Params) -> None: ...

    def logits(self, batch: HostBatch) -> np.ndarray: ...

    def gradients(self, batch: HostBatch) -> Params: ...

    def step(self, batch: HostBatch, lr: float) -> tuple[float, float]:
        """Train; return loss and gradient norm."""
        ...

    def parameters(self) -> Params: ...

    def moments(self) -> tuple[Params, Params]: ...


class ReferenceSubject:
    """The float64 reference; with `u`, the reference as rounding errors of that size would have it.

    Every answer is then that of parameters which are each off by a relative +u or -u, the signs drawn once and for
    all, and parameters and moments are kept in float32.
    """

    def __init__(self, spec: Spec, u: float = 0.0) -> None:
        self.spec, self.u = spec, u

    def load(self, values: Params) -> None:
        self._state = reference.State.start({name: value.astype(np.float64) for name, value in values.items()})

    def _perturbed(self) -> Params:
        if not self.u:
            return self._state.params
        result: Params = {}
        for name, value in self._state.params.items():
            bits = np.unpackbits(_bytes(f"perturbation {name}", -(-value.size // 8)))[: value.size]
            result[name] = value * (1 + self.u * (1 - 2.0 * bits.reshape(value.shape)))
        return result

    def logits(self, batch: HostBatch) -> np.ndarray:
        return reference.forward(self.spec, self._perturbed(), batch.images)[0]

    def gradients(self, batch: HostBatch) -> Params:
        return reference.loss_and_gradients(self.spec, self._perturbed(), batch.images, batch.targets)[1]

    def step(self, batch: HostBatch, lr: float) -> tuple[float, float]:
        o = self.spec.optimizer
        loss, gradients = reference.loss_and_gradients(self.spec, self._perturbed(), batch.images, batch.targets)
        clipped, norm = reference.clip(gradients, o.clip_norm)
        state = reference.adamw(o, self._state, clipped, lr)
        if self.u:
            state = reference.State(_as_float32(state.params), _as_float32(state.m), _as_float32(state.v), state.step)
        self._state = state
        return loss, norm

    def parameters(self) -> Params:
        return self._state.params

    def moments(self) -> tuple[Params, Params]:
        return self._state.m, self._state.v


def _as_float32(values: Params) -> Params:
    """float64 values as they are after having been stored in float32."""
    return {name: value.astype(np.float32).astype(np.float64) for name, value in values.items()}


class BackendSubject:
    """A backend, asked through its protocol; with several ranks they share the batch of a training step.

    Where their number does not divide the batch, each image stands in it as often as makes it so: the mean over the
    batch, and with it every answer, stays the same.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def load(self, values: Params) -> None:
        self.backend.load_params(values)

    def _to_device(self, batch: HostBatch) -> Batch:
        return self.backend.to_device(batch.images, batch.targets)

    def logits(self, batch: HostBatch) -> np.ndarray:
        return self.backend.to_numpy(self.backend.infer(self._to_device(batch)))

    def gradients(self, batch: HostBatch) -> Params:
        return self.backend.gradients(self._to_device(batch))

    def step(self, batch: HostBatch, lr: float) -> tuple[float, float]:
        group = self.backend.group
        copies = group.size // math.gcd(group.size, len(batch.images))
        rows = parallel.slice_of(copies * len(batch.images), group)
        part = HostBatch(*(np.repeat(array, copies, 0)[rows] for array in (batch.images, batch.targets)))
        loss, norm = self.backend.to_numpy(self.backend.train_step(self._to_device(part), lr))
        return float(loss), float(norm)

    def parameters(self) -> Params:
        return self.backend.export_params()

    def moments(self) -> tuple[Params, Params]:
        state = self.backend.export_state()
        m, v = ({k[2:]: value for k, value in state.items() if k.startswith(slot)} for slot in ("m/", "v/"))
        return m, v


Answer = np.ndarray | Params
"""A whole array, or a value for each parameter by name."""
QUESTIONS = 2 * len(CASES) + STEPS
"""How often `_answers` calls its `tick`."""


def _answers(subject: Subject, spec: Spec, tick: Callable[[str], None]) -> Iterator[tuple[str, Answer]]:
    """Everything that is compared, by the name of its check."""
    for case, make in CASES.items():
        subject.load(make(spec))
        batch = _batch(spec, 0)
        tick(f"logits, {case}")
        yield f"logits, {case}", subject.logits(batch)
        tick(f"gradients, {case}")
        yield f"gradients, {case}", subject.gradients(batch)
    yield from _trace_answers(subject, spec, tick)


def _trace_answers(subject: Subject, spec: Spec, tick: Callable[[str], None]) -> Iterator[tuple[str, Answer]]:
    first = params.initial(spec)
    subject.load(first)
    losses, norms, biases = [], [], [first["head.bias"]]
    for step, lr in enumerate(_learning_rates(spec)):
        tick(f"training step {step + 1} of {STEPS}")
        loss, norm = subject.step(_batch(spec, step), lr)
        losses.append(loss)
        norms.append(norm)
        biases.append(subject.parameters()["head.bias"])
    yield "trace, loss", np.array(losses)
    yield "trace, gradient norm", np.array(norms)
    yield "trace, learning rate", np.diff(np.array(biases, np.float64), axis=0)
    m, v = subject.moments()
    yield "trace, first moments", m
    yield "trace, second moments", v
    last = subject.parameters()
    updates = {name: last[name].astype(np.float64) - value for name, value in first.items()}
    yield KEY_BIASES, np.array([_pop_key_bias(spec, value) for name, value in updates.items() if _has_key_bias(name)])
    yield "trace, parameters", updates
    yield "trace, logits", subject.logits(_batch(spec, 0))


KEY_BIASES = "trace, key biases"


def _has_key_bias(name: str) -> bool:
    return name.endswith("attn.qkv.bias")


def _pop_key_bias(spec: Spec, qkv_bias: np.ndarray) -> np.ndarray:
    """The keys' third of a qkv bias, [D], which is replaced by zeros.

    Softmax does not change when one number is added to all scores of a query, so the gradient of a key's bias is
    exactly zero. What a backend finds instead is rounding noise, and AdamW, which divides a gradient by its own size,
    makes steps of up to the learning rate of it. They have no right value to be compared with, only a largest size.
    """
    keys = slice(spec.model.dim, 2 * spec.model.dim)
    popped = qkv_bias[keys].copy()
    qkv_bias[keys] = 0
    return popped


# --- Golden values: the reference's answers and their sensitivities. ---

Golden = dict[str, np.ndarray]
"""float64 arrays by name of the check, each with what it holds as a suffix.

NAME/value is a whole array. Values for each parameter are kept as NAME/norms [P] and NAME/projections [P, PROJECTIONS],
in canonical order. NAME/fp32 and NAME/bf16 are the sensitivities, [] or [P].
"""


def _relative(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def _worst_step(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value / exact - 1)))


def _worst_learning_rate(value: np.ndarray, exact: np.ndarray) -> float:
    """Error of the rate that was really applied: the least-squares factor between two series of updates [STEPS, C]."""
    return float(np.max(np.abs((value * exact).sum(-1) / (exact * exact).sum(-1) - 1)))


METRICS = {
    **{f"logits, {case}": (_relative, "relative error (L2) of all logits") for case in CASES},
    "trace, logits": (_relative, "relative error (L2) of all logits after the last step"),
    "trace, loss": (_worst_step, "largest relative error of a step"),
    "trace, gradient norm": (_worst_step, "largest relative error of a step"),
    "trace, learning rate": (_worst_learning_rate, "largest relative error of a step, read off head.bias"),
}
"""How two values of a whole array are compared, and what the figure then is."""


def _projections(name: str, value: np.ndarray) -> np.ndarray:
    """Inner products with PROJECTIONS vectors of random signs, [PROJECTIONS].

    The mean square of what separates the projections of two arrays is an unbiased estimate of their squared distance
    (Achlioptas, J. Comput. Syst. Sci. 66(4), 2003), within a factor of 2 in either direction for nearly all draws.
    """
    bits = np.unpackbits(_bytes(f"projection {name}", value.size)).reshape(-1, PROJECTIONS)
    flat = value.astype(np.float64).ravel()
    projected: np.ndarray = flat.sum() - 2 * (flat @ bits.astype(np.float64))
    return projected


def _summary(name: str, answer: Answer) -> Golden:
    if isinstance(answer, np.ndarray):
        return {f"{name}/value": answer}
    return {
        f"{name}/norms": np.array([np.linalg.norm(value) for value in answer.values()]),
        f"{name}/projections": np.array([_projections(parameter, value) for parameter, value in answer.items()]),
    }


def _sensitivity(name: str, perturbed: Answer, exact: Answer) -> np.ndarray:
    if isinstance(perturbed, np.ndarray) or isinstance(exact, np.ndarray):
        return np.array(METRICS[name][0](np.asarray(perturbed), np.asarray(exact)))
    return np.array([_relative(perturbed[parameter], value) for parameter, value in exact.items()])


def compute_golden(spec: Spec, progress: Progress = silent) -> Golden:
    """Let the reference answer, exactly and perturbed; about five minutes for the standard spec on two CPU cores."""
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        progress(done / (QUESTIONS * (1 + len(PRECISIONS))), f"reference: {text}")
        done += 1

    perturbed = [ReferenceSubject(spec, unit_roundoff(precision)) for precision in PRECISIONS]
    all_answers = (_answers(subject, spec, tick) for subject in (ReferenceSubject(spec), *perturbed))
    found: Golden = {}
    for (name, exact), *others in zip(*all_answers, strict=True):
        if name != KEY_BIASES:
            exact = _in_order(spec, exact)
            found |= _summary(name, exact)
            for precision, (_, answer) in zip(PRECISIONS, others, strict=True):
                found[f"{name}/{precision}"] = _sensitivity(name, answer, exact)
    return found


def _in_order(spec: Spec, answer: Answer) -> Answer:
    return answer if isinstance(answer, np.ndarray) else {name: answer[name] for name in params.shapes(spec)}


def golden_path(spec: Spec) -> Path:
    """File of a spec's golden values; its name is the fingerprint of all that they depend on."""
    content = spec.to_dict()
    depends = {key: content[key] for key in ("model", "init", "data", "optimizer", "schedule")}
    for key in ("train_images", "test_images", "crop_padding", "flip_probability"):
        del depends["data"][key]
    text = json.dumps([GOLDEN_FORMAT, SEED, BATCH, STEPS, PROJECTIONS, depends], sort_keys=True)
    return GOLDEN_FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


@cache
def golden(spec: Spec, progress: Progress = silent) -> Golden:
    """The golden values of a spec: read where they are kept, otherwise computed."""
    path = golden_path(spec)
    return safetensors.numpy.load_file(path) if path.exists() else compute_golden(spec, progress)


# --- Checks. ---


def run(
    backend: Backend, spec: Spec, precision: str, progress: Progress | None = None, clock: Clock = monotonic
) -> list[Check]:
    """Put all checks to a backend; it ends with other parameters than it began with.

    With several ranks all of them do this in step, and one more check says whether all passed and remained identical.

    Args:
        precision: "fp32" or "bf16", as the backend was built with.
        clock: read by the proof that `synchronize` waits, and by nothing else.
    """
    report = progress or silent
    expected = golden(spec, report)
    report(0.0, "parameters")
    checks = _check_parameters(backend, spec)
    if not all(check.passed for check in checks):
        return checks  # nothing can be compared under other names
    checks.append(_check_preprocess(backend, spec, precision))
    checks += _check_answers(backend, spec, precision, expected, report)
    checks += [_check_weight_decay(backend, spec), _check_adamw(backend, spec)]
    checks += _check_precision(backend, spec, precision)
    report(0.95, "synchronize")
    checks += _check_synchronize(backend, spec, clock)
    return [*checks, _check_ranks(backend, checks)] if backend.group.size > 1 else checks


def _check_ranks(backend: Backend, checks: list[Check]) -> Check:
    """Ranks that failed a check of their own, or whose parameters after all steps are not rank 0's, bit for bit."""
    passed = all(check.passed for check in checks)
    found = parallel.gathered_values(backend.group, [passed, params.fingerprint(backend.export_params())])
    wrong = [rank for rank, (fine, checksum) in enumerate(found) if not fine or checksum != found[0][1]]
    detail = f"ranks of {backend.group.size} that failed a check or differ from rank 0" + f": {wrong}" * bool(wrong)
    return _check("ranks", len(wrong), 0, detail)


def _check_parameters(backend: Backend, spec: Spec) -> list[Check]:
    loaded, shapes = _large(spec), params.shapes(spec)
    backend.load_params(loaded)
    exported = backend.export_params()
    wrong = [
        name
        for name in shapes.keys() | exported.keys()
        if name not in shapes or name not in exported or exported[name].shape != shapes[name]
    ]
    if wrong:
        return [_check("parameters", len(wrong), 0, f"names or shapes that differ: {', '.join(sorted(wrong)[:5])}")]
    values = sum(value.size for value in exported.values())
    changed = sum(int(np.sum(exported[name] != value)) for name, value in loaded.items())
    return [
        _check("parameters", abs(values - params.count(spec)), 0, f"{values:,} values under {len(shapes)} names"),
        _check("load and export", changed, 0, "values that loading and exporting changed"),
    ]


def _check_preprocess(backend: Backend, spec: Spec, precision: str) -> Check:
    """Normalised and upscaled pixels against float64, in units of the data's standard deviation.

    Roundings, each at most u of the value it makes: pixel / 255, the mean, their difference (values below 1, then
    divided by std): 3 u / std. The std, the quotient: 2 u X, with X the largest result. Each of the two products with
    the interpolation matrix rounds both operands, the product and its sum of two, and the result: 5 u X.
    """
    images = _batch(spec, 0).images.copy()
    images[0], images[1] = 0, 255
    exact = reference.preprocess(spec, images, np.dtype(np.float64))
    found = backend.to_numpy(backend.preprocess(backend.to_device(images, None)))
    largest = float(np.max(np.abs(exact)))
    bound = (3 / min(spec.data.std) + 12 * largest) * unit_roundoff(precision)
    error = float(np.max(np.abs(found - exact))) if found.shape == exact.shape else math.inf
    return _check("preprocess", error, bound, f"largest error of a pixel, among values up to {largest:.2f}")


def _check_answers(
    backend: Backend, spec: Spec, precision: str, expected: Golden, progress: Progress
) -> Iterator[Check]:
    """The answers that the reference has given as well."""
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        progress(0.9 * done / QUESTIONS, text)
        done += 1

    for name, answer in _answers(BackendSubject(backend), spec, tick):
        if name == KEY_BIASES:
            yield _key_bias_check(spec, np.asarray(answer))
            continue
        bounds = _bounds(name, spec, precision, expected[f"{name}/{precision}"], backend.group.size)
        if isinstance(answer, np.ndarray):
            metric, detail = METRICS[name]
            yield _check(name, metric(answer.astype(np.float64), expected[f"{name}/value"]), float(bounds), detail)
        else:
            yield _group_check(name, spec, answer, expected, bounds)


def _bounds(name: str, spec: Spec, precision: str, sensitivity: np.ndarray, ranks: int) -> np.ndarray:
    """Bound of each relative error: no answer is better than its own rounding, and a trace follows the clipping.

    A trace of several ranks follows the averaging of their gradients as well: at most one float32 rounding for each
    rank after the first, of partial sums that are no larger than the sum of sizes.
    """
    in_float32 = name in ("trace, loss", "trace, gradient norm", "trace, learning rate")
    rounding = unit_roundoff("fp32" if in_float32 else precision)
    per_gradient = norm_rounding(spec) + (ranks - 1) * unit_roundoff("fp32")
    per_trace = per_gradient * name.startswith("trace") * (2 if name == "trace, second moments" else 1)
    return np.asarray(headroom(spec, precision) * np.maximum(sensitivity, rounding) + per_trace)


def _worst(name: str, errors: dict[str, float], bounds: dict[str, float]) -> Check:
    """A check of every parameter, as that of the one whose error is largest in proportion to its bound."""
    ratios = {parameter: error / bounds[parameter] for parameter, error in errors.items()}
    worst = max(ratios, key=lambda parameter: math.inf if math.isnan(ratios[parameter]) else ratios[parameter])
    detail = f"relative error (L2) of {worst}, the worst of all parameters"
    return _check(name, errors[worst], bounds[worst], detail)


def _group_check(name: str, spec: Spec, values: Params, expected: Golden, bounds: np.ndarray) -> Check:
    errors = {}
    for i, (parameter, shape) in enumerate(params.shapes(spec).items()):
        errors[parameter] = math.inf
        if parameter in values and values[parameter].shape == shape:
            apart = _projections(parameter, values[parameter]) - expected[f"{name}/projections"][i]
            errors[parameter] = float(np.sqrt(np.mean(apart**2)) / expected[f"{name}/norms"][i])
    return _worst(name, errors, dict(zip(errors, map(float, bounds), strict=True)))


def _key_bias_check(spec: Spec, updates: np.ndarray) -> Check:
    """Biases of attention keys may move by AdamW's largest step: (1 - beta1) / sqrt(1 - beta2), at least 1, times the
    learning rate (Kingma and Ba, arXiv 1412.6980, section 2.1). Why nothing more can be said: _pop_key_bias.
    """
    o = spec.optimizer
    figure = float(np.max(np.abs(updates))) / sum(_learning_rates(spec))
    detail = "largest update, in units of the sum of learning rates; any such update is noise"
    return _check(KEY_BIASES, figure, max(1.0, (1 - o.beta1) / math.sqrt(1 - o.beta2)), detail)


def _check_weight_decay(backend: Backend, spec: Spec) -> Check:
    """One step in which decay is all that moves a parameter.

    With weight and bias of the last LayerNorm zero, the gradients of all but these two and head.bias are exactly zero
    at any precision, and so are AdamW's moments. What is left is p - lr * decay * p, in float32: at most 4 roundings,
    none larger than 2 u of what it leaves, as the learning rate is chosen to halve the decayed parameters.
    """
    o, norm = spec.optimizer, ("norm.weight", "norm.bias")
    before = _large(spec)
    before |= {name: np.zeros_like(before[name]) for name in norm}
    lr = 0.5 / o.weight_decay if o.weight_decay else 1.0
    backend.load_params(before)
    BackendSubject(backend).step(_batch(spec, 0), lr)
    after = backend.export_params()
    errors = {}
    for name, value in before.items():
        if name not in (*norm, "head.bias"):
            decay = o.weight_decay if params.has_decay(name, value.shape) else 0.0
            errors[name] = _relative(after[name], value.astype(np.float64) * (1 - lr * decay))
    return _worst("weight decay", errors, dict.fromkeys(errors, 8 * unit_roundoff("fp32")))


def _check_adamw(backend: Backend, spec: Spec) -> Check:
    """The first update, against what the backend's own moments demand; so free of the gradients' errors.

    The targets are nearly flat and the gradients small, so that eps shows. About 10 roundings to float32 make the
    step, 3 more its sum with the decayed parameter, each of up to u of the parameter.
    """
    lr, u = max(_learning_rates(spec)), unit_roundoff("fp32")
    before = params.initial(spec)
    backend.load_params(before)
    BackendSubject(backend).step(_batch(spec, 1), lr)
    after = {key: value.astype(np.float64) for key, value in backend.export_state().items()}
    errors, bounds = {}, {}
    for name, value in before.items():
        p, m, v = value.astype(np.float64), after[f"m/{name}"], after[f"v/{name}"]
        step = reference.updated(spec.optimizer, name, p, m, v, 1, lr) - p
        errors[name] = _relative(after[f"param/{name}"] - p, step)
        bounds[name] = (10 + 3 * float(np.linalg.norm(p) / np.linalg.norm(step))) * u
    return _worst("AdamW", errors, bounds)


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


def _check_precision(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """Bits that matrix products keep: 24 in float32, 11 in TF32 and float16, 8 in bfloat16.

    In training they are read off the gradient of head.weight, an outer product with norm.bias. As the gradients
    themselves are rounded, twice at most in the ratio of two of them, the last 3 bits do not show.
    """
    exponents = np.arange(1, min(SIGNIFICAND_BITS["fp32"], spec.model.dim - 1))
    n = len(exponents)
    wanted = min(SIGNIFICAND_BITS[precision], n + 1)
    backend.load_params(_significand_weights(spec, exponents))
    batch = _batch(spec, 0)
    on_device = backend.to_device(batch.images, batch.targets)
    kept = np.all(backend.to_numpy(backend.infer(on_device))[:, : 2 * n] == 2.0 ** -np.tile(exponents, 2), axis=0)
    bits = [1 + _leading(kept[:n]), 1 + _leading(kept[n:])]
    detail = f"bits off {wanted}: matrix products keep {bits[0]} bits of a weight and {bits[1]} of an activation"
    yield _check("precision, inference", max(abs(b - wanted) for b in bits), 0, detail)

    gradient = backend.gradients(on_device)["head.weight"].astype(np.float64)
    row = gradient[np.argmax(np.abs(gradient[:, 0]))]
    ratio = row[1 : n + 1] / row[0] - 1
    trained = 1 + _leading(np.abs(ratio - 2.0**-exponents) < 0.5 * 2.0**-exponents)
    detail = f"bits off {wanted}: matrix products keep {trained} bits or up to 3 more of an activation"
    yield _check("precision, training", abs(trained - wanted), 3, detail)


MIN_WORK = 0.05
"""Seconds of work that is queued before `synchronize` is tried: long beside a transfer of the result."""
ATTEMPTS = 5
MATMUL_SIZE = 1024


def _check_synchronize(backend: Backend, spec: Spec, clock: Clock) -> Iterator[Check]:
    """Whether `synchronize` returns no sooner than the work is done, for each kind of work that is timed."""
    backend.load_params(params.initial(spec))
    host = _batch(spec, 0)
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
        enough = bool(parallel.decided(group, seconds >= MIN_WORK))
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
        if max(parallel.gathered_values(group, min(shares))) <= WAIT_BOUND:
            break
    detail = f"share left of {count} dispatches in {1e3 * dispatched[-1]:.3g} of {1e3 * seconds:.3g} ms"
    return _check(f"synchronize, {kind}", min(shares), WAIT_BOUND, detail)


WAIT_BOUND = 0.1
"""Largest share of the work that may seem left; what is seen beyond is not the jitter of two reads."""


@click.command()
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="A spec file; the standard one by default.")
def main(spec_path: Path | None) -> None:
    """Compute a spec's golden values in float64 and keep them beside this module."""
    spec = load_spec(spec_path)
    found = compute_golden(spec, lambda done, text, **figures: click.echo(f"{100 * done:3.0f} % {text}", err=True))
    path = golden_path(spec)
    jsonio.write_atomic(path, safetensors.numpy.save(found))
    click.echo(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
