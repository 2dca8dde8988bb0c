"""Probes: inputs made of raw bits, and what is asked alike of the reference and of a backend."""

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Batch
from shared_spec.data.batches import HostBatch, soft_targets
from shared_spec.workload import params, reference
from shared_spec.workload.arrays import NUMPY, Arrays
from shared_spec.workload.params import Params
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import Spec

SEED = 3
BATCH = 4
STEPS = 20
KEY_BIASES = "trace, key biases"
"""The one answer that is not compared with the reference's, but has a largest size: see pop_key_bias."""


# --- Inputs: made of raw Philox bits, so the same on every machine. ---


def _bits(label: str, count: int) -> np.ndarray:
    """uint64 [count] of the random stream that `label` names."""
    index = int.from_bytes(hashlib.sha256(label.encode()).digest()[:6], "little")
    return random_bits(SEED, "probe", index, count)


def random_bytes(label: str, count: int) -> np.ndarray:
    """uint8 [count] of the random stream that `label` names."""
    return _bits(label, -(-count // 8)).view(np.uint8)[:count]


def uniform(label: str, shape: tuple[int, ...], rms: float) -> np.ndarray:
    """float32 of mean zero and root mean square `rms`, evenly spread."""
    unit = (_bits(label, math.prod(shape)) >> np.uint64(11)) * 2.0**-53
    return ((2 * unit - 1) * math.sqrt(3) * rms).astype(np.float32).reshape(shape)


def probe_batch(spec: Spec, step: int) -> HostBatch:
    """BATCH images of noise, with targets that are sharp in even steps and nearly flat in odd ones.

    Gradients of even steps are therefore several times those of odd ones, so that AdamW, which does not see the
    scale of all gradients together, does see whether each step was clipped.
    """
    side = spec.data.image_size
    images = random_bytes(f"images {step}", BATCH * side * side * 3).reshape(BATCH, side, side, 3)
    labels = (_bits(f"labels {step}", BATCH) % np.uint64(spec.model.classes)).astype(np.intp)
    smoothing = 0.95 if step % 2 else spec.data.label_smoothing
    return HostBatch(images, soft_targets(labels, spec.model.classes, smoothing))


def large_weights(spec: Spec) -> Params:
    """Weights so large that every product, LayerNorm and bias counts.

    A matrix multiplies the size of its input by 1.6: attention scores are spread by 1.6^2 = 2.6, so that softmax
    saturates, and GELU's inputs reach both its tails.
    """
    values: Params = {}
    for name, shape in params.shapes(spec).items():
        if params.has_decay(name, shape):
            values[name] = uniform(name, shape, 1.6 / math.sqrt(math.prod(shape[1:])))
        elif len(shape) > 1:
            values[name] = uniform(name, shape, 1.0)
        else:
            values[name] = uniform(name, shape, 0.3) + np.float32(name.endswith("weight"))
    return values


def small_variance_weights(spec: Spec) -> Params:
    """The large weights, but all that is added to the residual stream shrunk by sqrt(eps).

    LayerNorm undoes such a factor, were it not for its eps, which now is of the variance's own size.
    """
    factor = np.float32(math.sqrt(spec.model.layer_norm_eps))
    writers = ("cls_token", "pos_embed", "patch_embed.proj", "attn.proj", "mlp.fc2")
    values = large_weights(spec)
    return {name: v * factor if any(writer in name for writer in writers) else v for name, v in values.items()}


CASES: dict[str, Callable[[Spec], Params]] = {
    "initial weights": params.initial,
    "large weights": large_weights,
    "small variance": small_variance_weights,
}


def learning_rates(spec: Spec) -> list[float]:
    """The schedule over STEPS steps of BATCH images: a quarter of them warm-up, and the peak of the reference batch."""
    short = spec.changed(
        training=spec.training.changed(epochs=1),
        data=spec.data.changed(train_images=STEPS * BATCH),
        schedule=spec.schedule.changed(reference_batch=BATCH, warmup_fraction=0.25),
    )
    return [short.learning_rate(step, BATCH) for step in range(STEPS)]


# --- What is asked, alike of the reference and of a backend. ---


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

    Args:
        draw: which of the draws of these signs.
        arrays: what it computes with; answers are on the host all the same.
    """

    def __init__(self, spec: Spec, u: float = 0.0, draw: int = 0, arrays: Arrays = NUMPY) -> None:
        self.spec, self.u, self.arrays = spec, u, arrays
        self._signs: Params = {}
        self._label = "perturbation" + f" {draw}" * bool(draw)

    def load(self, values: Params) -> None:
        exact = {name: self.arrays.put(value.astype(np.float64)) for name, value in values.items()}
        self._state = reference.State.start(exact)

    def _perturbed(self) -> Params:
        if not self.u:
            return self._state.params
        if not self._signs:
            self._signs = {name: self._drawn(name, value.shape) for name, value in self._state.params.items()}
        return {name: value + self.u * value * self._signs[name] for name, value in self._state.params.items()}

    def _drawn(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """+1 or -1 for each value, int8."""
        size = math.prod(shape)
        bits = np.unpackbits(random_bytes(f"{self._label} {name}", -(-size // 8)))[:size]
        return self.arrays.put((1 - 2 * bits.astype(np.int8)).reshape(shape))

    def _on_host(self, values: Params) -> Params:
        return {name: self.arrays.get(value) for name, value in values.items()}

    def _loss_and_gradients(self, batch: HostBatch) -> tuple[float, Params]:
        return reference.loss_and_gradients(self.spec, self._perturbed(), batch.images, batch.targets, self.arrays)

    def logits(self, batch: HostBatch) -> np.ndarray:
        return self.arrays.get(reference.forward(self.spec, self._perturbed(), batch.images, self.arrays)[0])

    def gradients(self, batch: HostBatch) -> Params:
        return self._on_host(self._loss_and_gradients(batch)[1])

    def step(self, batch: HostBatch, lr: float) -> tuple[float, float]:
        o = self.spec.optimizer
        loss, gradients = self._loss_and_gradients(batch)
        clipped, norm = reference.clip(gradients, o.clip_norm)
        state = reference.adamw(o, self._state, clipped, lr)
        if self.u:
            state = reference.State(_as_float32(state.params), _as_float32(state.m), _as_float32(state.v), state.step)
        self._state = state
        return loss, norm

    def parameters(self) -> Params:
        return self._on_host(self._state.params)

    def moments(self) -> tuple[Params, Params]:
        return self._on_host(self._state.m), self._on_host(self._state.v)


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
        rows = ranks.slice_of(copies * len(batch.images), group)
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
TICKS = 2 * len(CASES) + STEPS
"""How often `answers` calls its `tick`."""


def answers(subject: Subject, spec: Spec, tick: Callable[[str], None]) -> Iterator[tuple[str, Answer]]:
    """Everything that is compared, by the name of its check."""
    for case, make in CASES.items():
        subject.load(make(spec))
        batch = probe_batch(spec, 0)
        tick(f"logits, {case}")
        yield f"logits, {case}", subject.logits(batch)
        tick(f"gradients, {case}")
        yield f"gradients, {case}", subject.gradients(batch)
    yield from _trace_answers(subject, spec, tick)


def _trace_answers(subject: Subject, spec: Spec, tick: Callable[[str], None]) -> Iterator[tuple[str, Answer]]:
    first = params.initial(spec)
    subject.load(first)
    losses, norms, biases = [], [], [first["head.bias"]]
    for step, lr in enumerate(learning_rates(spec)):
        tick(f"training step {step + 1} of {STEPS}")
        loss, norm = subject.step(probe_batch(spec, step), lr)
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
    yield KEY_BIASES, np.array([pop_key_bias(spec, value) for name, value in updates.items() if _has_key_bias(name)])
    yield "trace, parameters", updates
    yield "trace, logits", subject.logits(probe_batch(spec, 0))


def _has_key_bias(name: str) -> bool:
    return name.endswith("attn.qkv.bias")


def pop_key_bias(spec: Spec, qkv_bias: np.ndarray) -> np.ndarray:
    """The keys' third of a qkv bias, [D], which is replaced by zeros.

    Softmax does not change when one number is added to all scores of a query, so the gradient of a key's bias is
    exactly zero. What a backend finds instead is rounding noise, and AdamW, which divides a gradient by its own size,
    makes steps of up to the learning rate of it. They have no right value to be compared with, only a largest size.
    """
    keys = slice(spec.model.dim, 2 * spec.model.dim)
    popped = qkv_bias[keys].copy()
    qkv_bias[keys] = 0
    return popped
