"""What is computed in which precision, read back: bits of products, and what a training step hands to its products.

The gradient of a linear layer's weight is the outer product of its bias's gradient with what the layer was given, as
long as only one row of it has a gradient, or all rows are alike. So parameters and images are chosen that make it so,
one real training step is made, and its first moments, which then are clipped gradients, show what pixels,
LayerNorms, softmax and GELU have become in that very step. In bfloat16 such values may have been rounded once, at the
end. What is rounded before, inside of a resize or a sum, is further off than that, and several times so.
"""

import math
from collections.abc import Iterator

import numpy as np

from shared_spec.backend import Backend
from shared_spec.conformance.bounds import check, headroom
from shared_spec.conformance.error_measures import SIGNIFICAND_BITS, relative_error, unit_roundoff
from shared_spec.conformance.probes import BATCH, BackendSubject, probe_batch, uniform
from shared_spec.data.batches import HostBatch, soft_targets
from shared_spec.results.quantities import Check
from shared_spec.workload import params, reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec


def precision_checks(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """All of them; the backend ends with other parameters."""
    yield _training_bits(backend, spec, precision)
    yield _check_resize(backend, spec, precision)
    yield _check_layer_norm(backend, spec, precision)
    yield from _check_softmax_and_gelu(backend, spec, precision)
    yield _check_loss(backend, spec)
    yield inference_bits(backend, spec, precision, probe_batch(spec, 0).images, "precision, inference")


# --- Bits of products.


def _training_bits(backend: Backend, spec: Spec, precision: str) -> Check:
    """Bits that a training step's products keep: 24 in float32, 11 in TF32 and float16, 8 in bfloat16.

    They are read off the gradient of head.weight, an outer product with norm.bias. As the gradients themselves are
    rounded, twice at most in the ratio of two of them, the last 3 bits do not show.
    """
    exponents, wanted = _exponents(spec, precision)
    n = len(exponents)
    gradient = _step_gradients(backend, _significand_weights(spec, exponents), probe_batch(spec, 0))["head.weight"]
    row = gradient[np.argmax(np.abs(gradient[:, 0]))]
    ratio = row[1 : n + 1] / row[0] - 1
    kept = 1 + _leading(np.abs(ratio - 2.0**-exponents) < 0.5 * 2.0**-exponents)
    detail = f"bits off {wanted}: matrix products keep {kept} bits or up to 3 more of an activation"
    return check("precision, training", abs(kept - wanted), 3, detail)


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


# --- What a training step hands to its products.


def _step_gradients(backend: Backend, values: Params, batch: HostBatch) -> Params:
    """Gradients of one training step with these parameters, float64, each times one and the same positive number."""
    backend.load_params(values)
    subject = BackendSubject(backend)
    subject.step(batch, 0.0)
    return {name: m.astype(np.float64) for name, m in subject.moments()[0].items()}


def _given(gradients: Params, layer: str) -> np.ndarray:
    """What a linear layer was given, [in], by least squares over its outputs, so that their roundings average out."""
    bias = gradients[f"{layer}.bias"]
    found: np.ndarray = bias @ gradients[f"{layer}.weight"].reshape(len(bias), -1) / (bias @ bias)
    return found


def _same_images(spec: Spec) -> HostBatch:
    """One image of noise, BATCH times, with targets so flat that no one class has all of the gradient."""
    batch = probe_batch(spec, 1)
    return HostBatch(*(np.repeat(array[:1], BATCH, 0) for array in (batch.images, batch.targets)))


def _silent_blocks(spec: Spec, stream: np.ndarray) -> Params:
    """Parameters with which every block adds zero to the residual stream, whose tokens are `stream`, [N, D].

    Each branch is a product of zero with a weight that is not: its first layer's gradient is what is given to it.
    """
    values = {name: np.zeros(shape, np.float32) for name, shape in params.shapes(spec).items()}
    for name, value in values.items():
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight", "head.weight")):
            values[name] = uniform(name, value.shape, 1 / math.sqrt(value.shape[1]))
        elif "norm" in name and name.endswith("weight"):
            values[name] = np.ones_like(value)
    return values | {"pos_embed": stream.astype(np.float32)[None]}


def _rounded_once(found: np.ndarray, exact: np.ndarray, precision: str) -> float:
    """Relative error (L2) of values that a backend may have rounded to its precision once, or not at all."""
    significand, exponent = np.frexp(exact)
    bits = 2.0 ** SIGNIFICAND_BITS[precision]
    once = np.ldexp(np.round(significand * bits) / bits, exponent)
    return min(relative_error(found, exact), relative_error(found, once))


def _rounded_once_bound(spec: Spec, precision: str, amplified: float = 1.0) -> float:
    """Bound of `_rounded_once`, where errors of float32 are amplified.

    bf16: rounding to it is off by 0.42 u in the mean square. A reading is the quotient of two rounded gradients, off by
    0.6 u, and averaged over a layer's outputs, of which about a third count: u / sqrt(dim), twice that for the worst of
    many layers. u / 8 more, as errors of float32 carry some values over the middle between two numbers. What is
    rounded twice is off by 0.42 u, and what is computed from rounded values by as much again for each of them.

    fp32: headroom for the sums.
    """
    in_float32 = headroom(spec, "fp32") * amplified * unit_roundoff("fp32")
    reading = (1 / 8 + 2 / math.sqrt(spec.model.dim)) * unit_roundoff("bf16")
    return in_float32 + (reading if precision == "bf16" else 0.0)


def _two_kinds(spec: Spec, others: np.ndarray) -> np.ndarray:
    """A stream [N, D] of +1 and -1 in turns, which LayerNorm leaves alone, the other way round for the tokens `others`."""
    stream = np.tile(1 - 2.0 * (np.arange(spec.model.dim) % 2), (spec.model.tokens, 1))
    stream[others] *= -1
    return stream


def _with_scores(spec: Spec, values: Params, block: str, score: float) -> None:
    """Change a block's parameters so that every query gives the others of `_two_kinds` `score` more than the rest."""
    d, head_dim = spec.model.dim, spec.model.head_dim
    first = np.arange(0, d, head_dim)  # of each head
    values[f"{block}.attn.qkv.weight"][d + first, 0] = 1
    values[f"{block}.attn.qkv.bias"][first] = -score * math.sqrt(head_dim) / 2


def _check_resize(backend: Backend, spec: Spec, precision: str) -> Check:
    """Pixels of a patch as the step's first product is given them.

    The first block's attention looks at one patch alone, by a score that leaves the others a weight of zero, so that
    only that patch has a gradient.
    """
    m, batch = spec.model, _same_images(spec)
    patch = (m.tokens - 1) // 2
    values = _silent_blocks(spec, _two_kinds(spec, np.array([patch + 1])))
    _with_scores(spec, values, "blocks.0", 256.0)
    of_values = values["blocks.0.attn.qkv.weight"][2 * m.dim :]
    of_values[:] = uniform("values", of_values.shape, 1 / math.sqrt(m.dim))
    found = _given(_step_gradients(backend, values, batch), "patch_embed.proj")
    pixels = reference.preprocess(spec, batch.images[:1], np.dtype(np.float64))
    exact = reference.patches(pixels, m.patch_size)[0, patch]
    amplified = 1 / min(spec.data.std)  # the mean is taken off values below 1, then divided by std
    bound = _rounded_once_bound(spec, precision, amplified)
    detail = "relative error (L2) of a patch's pixels, from what a step's first product was given"
    return check("precision, resize", _rounded_once(found, exact, precision), bound, detail)


def _check_layer_norm(backend: Backend, spec: Spec, precision: str) -> Check:
    """Normalised values as the products behind every LayerNorm are given them.

    A row's values are bfloat16 numbers between 1 and 1.12; their mean lies between two such numbers, and rounded to
    either it would be off by a tenth of the standard deviation. Their sum is exact in float32. Where the variance is
    the mean of squares less the squared mean, float32's errors grow by that quotient's square.
    """
    m = spec.model
    steps = np.arange(m.dim) % 16
    row = 1 + 2.0**-7 * np.where(np.arange(m.dim) // 16 % 2, 15 - steps, steps)
    gradients = _step_gradients(backend, _silent_blocks(spec, np.tile(row, (m.tokens, 1))), _same_images(spec))
    exact, _ = reference.layer_norm(row, np.ones(m.dim), np.zeros(m.dim), m.layer_norm_eps)
    layers = [f"blocks.{i}.{layer}" for i in range(m.depth) for layer in ("attn.qkv", "mlp.fc1")] + ["head"]
    errors = {layer: _rounded_once(_given(gradients, layer), exact, precision) for layer in layers}
    worst = max(errors, key=lambda layer: math.inf if math.isnan(errors[layer]) else errors[layer])
    bound = _rounded_once_bound(spec, precision, row.mean() ** 2 / row.var() / headroom(spec, "fp32"))
    detail = f"relative error (L2) of what LayerNorm gives to {worst}, the worst of {len(layers)}, in a step"
    return check("precision, LayerNorm", errors[worst], bound, detail)


def _check_softmax_and_gelu(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """Attention's sums and GELU as the products behind them are given them.

    A power of two of equal keys gets the score 0, the rest a lower one, such that their exponentials add nearly half of
    a bfloat16 step to that power: a sum in bfloat16 loses them, and with them 2^-8 of the weights' size. Values are
    the same for all keys, so that attention returns them if its weights add up to 1. GELU is looked at where it is
    negative, where the tanh approximation is off by far more than a rounding.
    """
    m = spec.model
    equal = 2 ** int(math.log2(m.tokens - 1))
    others = m.tokens - equal
    score = math.log(0.95 * equal * unit_roundoff("bf16") / others)
    values = _silent_blocks(spec, _two_kinds(spec, np.arange(equal, m.tokens)))
    kept = 1 + np.arange(m.dim) * 37 % 128 / 128  # values that bfloat16 can hold
    inputs = -1 - np.arange(m.mlp_dim) * 37 % 96 / 32
    for block in (f"blocks.{i}" for i in range(m.depth)):
        _with_scores(spec, values, block, score)
        values[f"{block}.attn.qkv.bias"][2 * m.dim :] = kept
        values[f"{block}.mlp.fc1.bias"][:] = inputs
        values[f"{block}.attn.proj.weight"][:] = values[f"{block}.mlp.fc2.weight"][:] = 0
    gradients = _step_gradients(backend, values, _same_images(spec))
    heads = kept.reshape(m.heads, -1)
    sums = [
        (_given(gradients, f"blocks.{i}.attn.proj").reshape(heads.shape) * heads).sum(-1) / (heads**2).sum(-1)
        for i in range(m.depth)
    ]
    detail = f"distance from 1 of the sum of attention's weights, the worst of {m.depth} blocks and {m.heads} heads"
    bound = headroom(spec, "fp32") * unit_roundoff("fp32")
    bound += unit_roundoff("bf16") / 2 if precision == "bf16" else 0.0  # half of what such a sum would lose
    yield check("precision, softmax", float(np.max(np.abs(np.array(sums) - 1))), bound, detail)
    exact, _ = reference.gelu(inputs)
    errors = [_rounded_once(_given(gradients, f"blocks.{i}.mlp.fc2"), exact, precision) for i in range(m.depth)]
    detail = f"relative error (L2) of GELU's negative values in a step, the worst of {m.depth} blocks"
    amplified = float(np.linalg.norm(inputs) / np.linalg.norm(exact))  # 1 + erf is known to u of 1
    yield check("precision, GELU", float(np.max(errors)), _rounded_once_bound(spec, precision, amplified), detail)


def _check_loss(backend: Backend, spec: Spec) -> Check:
    """The loss of logits that bfloat16 can hold, to float32's precision whatever that of the products.

    Logits are head.bias, as what the head is given is zero. Each of the C exponentials is off by their argument's
    size, their sum by sqrt(C / 2) roundings, and the loss, its terms and their mean by a few more.
    """
    values = params.initial(spec)
    values |= {name: np.zeros_like(values[name]) for name in ("norm.weight", "norm.bias")}
    classes = spec.model.classes
    logits = np.arange(classes) * 37 % 64 / 16
    values["head.bias"] = logits.astype(np.float32)
    targets = soft_targets(np.arange(BATCH) % classes, classes, spec.data.label_smoothing)
    backend.load_params(values)
    loss, _ = BackendSubject(backend).step(HostBatch(probe_batch(spec, 0).images, targets), 0.0)
    exact, _ = reference.cross_entropy(np.tile(logits, (BATCH, 1)), targets.astype(np.float64))
    bound = (8 + float(np.max(logits)) + math.sqrt(classes / 2)) * unit_roundoff("fp32")
    return check("precision, loss", abs(loss / exact - 1), bound, f"relative error of a step's loss, {exact:.4g}")
