"""A backend made of the NumPy reference, at float32 or with bfloat16 products, into which faults can be planted.

Its device is imaginary: work takes a fixed time on a clock of its own, which moves only while somebody waits.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from shared_spec.data.batches import HostBatch
from shared_spec.ranks import ALONE, Group, gathered
from shared_spec.workload import params as canonical
from shared_spec.workload import reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec

WORK_SECONDS, READ_SECONDS = 0.1, 0.001


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """`x` rounded to so many bits of significand, ties to even."""
    significand, exponent = np.frexp(x)
    return np.ldexp(np.round(significand * 2.0**bits) / 2.0**bits, exponent)


def tf32_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rounded(a, 11) @ rounded(b, 11)


def bf16_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rounded(rounded(a, 8) @ rounded(b, 8), 8)


_product, _preprocess, _attention = reference.product, reference.preprocess, reference.attention
_layer_norm, _cross_entropy = reference.layer_norm, reference.cross_entropy


def _float32_preprocess(*args: Any) -> np.ndarray:
    """Products of float32 in a bfloat16 step too, as on all platforms."""
    with mock.patch.object(reference, "product", _product):
        return _preprocess(*args)


def _bf16_statistics(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> reference.Layered:
    """LayerNorm whose mean, variance and reciprocal deviation are bfloat16."""
    centred = x - rounded(x.mean(-1, keepdims=True), 8)
    inverse_std = rounded(1 / np.sqrt(rounded((centred**2).mean(-1, keepdims=True), 8) + eps), 8)
    _, pullback = _layer_norm(x, weight, bias, eps)
    return centred * inverse_std * weight + bias, pullback


def _bf16_sums(x: np.ndarray) -> reference.Layered:
    """Softmax whose sums are bfloat16."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    y = exponentials / rounded(exponentials.sum(-1, keepdims=True), 8)
    return y, lambda dy: y * (dy - (dy * y).sum(-1, keepdims=True))


def _bf16_loss(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    loss, gradient = _cross_entropy(logits, targets)
    return float(rounded(np.array(loss), 8)), gradient


def _bf16_preprocess(*args: Any) -> np.ndarray:
    with mock.patch.object(reference, "product", bf16_product):
        return _preprocess(*args)


def _tf32_attention(qkv: np.ndarray, heads: int) -> reference.Layered:
    with mock.patch.object(reference, "product", tf32_product):
        return _attention(qkv, heads)


def _of_bits(bits: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Products of operands with so many bits of significand: 4 in fp8 (E4M3)."""
    return lambda a, b: _product(rounded(a, bits), rounded(b, bits))


def tanh_gelu(x: np.ndarray, erf: object = None) -> reference.Layered:
    """The approximation of arXiv 1606.08415, section 2."""
    c = math.sqrt(2 / math.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))

    def pullback(dy: np.ndarray) -> np.ndarray:
        return dy * 0.5 * (1 + t + x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x))

    return 0.5 * x * (1 + t), pullback


def _through_qkv(change: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]) -> Any:
    """An attention that changes the packed queries, keys, values [3, B, N, D] first; `back` is the transpose."""

    def thirds(packed: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.concatenate(function(np.stack(np.split(packed, 3, -1))), -1)

    def changed(qkv: np.ndarray, heads: int) -> reference.Layered:
        y, pullback = _attention(thirds(qkv, change), heads)
        return y, lambda dy: thirds(pullback(dy), back)

    return changed


def _unscaled(heads_dim: int) -> Any:
    factor = np.array([math.sqrt(heads_dim), 1, 1], np.float32).reshape(3, 1, 1, 1)
    return _through_qkv(lambda qkv: qkv * factor, lambda qkv: qkv * factor)


def _align_corners(source: int, target: int) -> np.ndarray:
    position = np.arange(target) * (source - 1) / (target - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source))).astype(np.float32)


def _nearest(source: int, target: int) -> np.ndarray:
    return np.eye(source, dtype=np.float32)[np.arange(target) * source // target]


_adamw, _clip = reference.adamw, reference.clip


def _uncorrected_adamw(o: Any, state: reference.State, gradients: Params, lr: float) -> reference.State:
    """Without bias correction, as if a great many steps had been made before."""
    return replace(_adamw(o, replace(state, step=10**6), gradients, lr), step=state.step + 1)


def _epsilon_hat_adamw(o: Any, state: reference.State, gradients: Params, lr: float) -> reference.State:
    """As Keras does it: eps added to the root before that is corrected."""
    eps = o.eps / math.sqrt(1 - o.beta2 ** (state.step + 1))
    return _adamw(o.changed(eps=eps), state, gradients, lr)


def _coupled_adamw(o: Any, state: reference.State, gradients: Params, lr: float) -> reference.State:
    """Adam with L2 regularisation: the decay goes through the moments."""
    coupled = {
        name: g + o.weight_decay * state.params[name] if canonical.has_decay(name, g.shape) else g
        for name, g in gradients.items()
    }
    return _adamw(o.changed(weight_decay=0.0), state, coupled, lr)


def _bf16_moments(*slots: str) -> Callable[..., reference.State]:
    """AdamW that keeps these moments in bfloat16."""

    def adamw(o: Any, state: reference.State, gradients: Params, lr: float) -> reference.State:
        state = _adamw(o, state, gradients, lr)
        low = {slot: {name: rounded(x, 8) for name, x in getattr(state, slot).items()} for slot in slots}
        return replace(state, **low)

    return adamw


def _clip_each(gradients: Params, clip_norm: float) -> tuple[Params, float]:
    """Every parameter's gradient clipped by its own norm."""
    return {name: _clip({name: g}, clip_norm)[0][name] for name, g in gradients.items()}, _clip(gradients, clip_norm)[1]


def _in_model(**changes: Any) -> Callable[[Spec], Spec]:
    return lambda spec: spec.changed(model=spec.model.changed(**changes))


def _in_data(**changes: Any) -> Callable[[Spec], Spec]:
    return lambda spec: spec.changed(data=spec.data.changed(**changes))


def _in_optimizer(**changes: Any) -> Callable[[Spec], Spec]:
    return lambda spec: spec.changed(optimizer=spec.optimizer.changed(**changes))


@dataclass(frozen=True)
class Fault:
    """What a faulty backend does otherwise: parts of the reference replaced, another spec, or a named behaviour.

    Attributes:
        step_only: whether the parts are replaced in training steps alone, and not where gradients or logits are asked.
    """

    patches: Callable[[Spec], dict[str, Any]] = lambda spec: {}
    spec: Callable[[Spec], Spec] = lambda spec: spec
    behaviour: str = ""
    step_only: bool = False


FAULTS = {
    "none": Fault(),
    "tanh GELU": Fault(lambda spec: {"gelu": tanh_gelu}),
    "LayerNorm eps 1e-5": Fault(spec=_in_model(layer_norm_eps=1e-5)),
    "queries, keys, values in another order": Fault(
        lambda spec: {"attention": _through_qkv(lambda qkv: qkv[[1, 2, 0]], lambda qkv: qkv[[2, 0, 1]])}
    ),
    "queries and keys swapped": Fault(
        lambda spec: {"attention": _through_qkv(lambda qkv: qkv[[1, 0, 2]], lambda qkv: qkv[[1, 0, 2]])}
    ),
    "attention not scaled": Fault(lambda spec: {"attention": _unscaled(spec.model.head_dim)}),
    "resize with aligned corners": Fault(lambda spec: {"interpolation_matrix": _align_corners}),
    "resize to the nearest": Fault(lambda spec: {"interpolation_matrix": _nearest}),
    "mean and std of ImageNet": Fault(spec=_in_data(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    "TF32 products": Fault(lambda spec: {"product": tf32_product}),
    "bf16 products": Fault(lambda spec: {"product": bf16_product}),
    "fp32 products": Fault(lambda spec: {"product": reference.product}),
    "not clipped": Fault(spec=_in_optimizer(clip_norm=math.inf)),
    "no bias correction": Fault(lambda spec: {"adamw": _uncorrected_adamw}),
    "eps inside the bias correction": Fault(lambda spec: {"adamw": _epsilon_hat_adamw}),
    "Adam eps 1e-7": Fault(spec=_in_optimizer(eps=1e-7)),
    "beta2 0.99": Fault(spec=_in_optimizer(beta2=0.99)),
    "decay through the moments": Fault(lambda spec: {"adamw": _coupled_adamw}),
    "decay on biases alone": Fault(
        lambda spec: {"has_decay": lambda name, shape: not canonical.has_decay(name, shape)}
    ),
    "decay on everything": Fault(lambda spec: {"has_decay": lambda name, shape: True}),
    "decay on pos_embed": Fault(lambda spec: {"has_decay": lambda name, shape: len(shape) > 1}),
    "no decay": Fault(spec=_in_optimizer(weight_decay=0.0)),
    "labels not smoothed": Fault(behaviour="hard targets"),
    "learning rate of the first step": Fault(behaviour="frozen rate"),
    "norm of clipped gradients": Fault(behaviour="clipped norm"),
    "inference with old weights": Fault(behaviour="stale inference"),
    "moments kept by load_params": Fault(behaviour="kept moments"),
    "parameters kept in bf16": Fault(behaviour="rounded parameters"),
    "parameter left out": Fault(behaviour="lost parameter"),
    "NaN gradients": Fault(behaviour="nan gradients"),
    "synchronize does not wait": Fault(behaviour="no wait"),
    "TF32 in attention": Fault(lambda spec: {"attention": _tf32_attention}),
    "6-bit operands": Fault(lambda spec: {"product": _of_bits(6)}),
    "fp8 operands": Fault(lambda spec: {"product": _of_bits(4)}),
    "LayerNorm statistics in bf16": Fault(lambda spec: {"layer_norm": _bf16_statistics}),
    "softmax sums in bf16": Fault(lambda spec: {"softmax": _bf16_sums}),
    "loss in bf16": Fault(lambda spec: {"cross_entropy": _bf16_loss}),
    "resize in bf16 in the step only": Fault(lambda spec: {"preprocess": _bf16_preprocess}, step_only=True),
    "resize in bf16": Fault(lambda spec: {"preprocess": _bf16_preprocess}),
    "nearest resize in the step only": Fault(lambda spec: {"interpolation_matrix": _nearest}, step_only=True),
    "tanh GELU in the step only": Fault(lambda spec: {"gelu": tanh_gelu}, step_only=True),
    "TF32 products in the step only": Fault(lambda spec: {"product": tf32_product}, step_only=True),
    "moments kept in bf16": Fault(lambda spec: {"adamw": _bf16_moments("m", "v")}),
    "first moments kept in bf16": Fault(lambda spec: {"adamw": _bf16_moments("m")}),
    "second moments kept in bf16": Fault(lambda spec: {"adamw": _bf16_moments("v")}),
    "clipped parameter by parameter": Fault(lambda spec: {"clip": _clip_each}),
    "decay by the peak rate": Fault(behaviour="peak decay"),
    "learning rate one step late": Fault(behaviour="late rate"),
    "last row dropped": Fault(behaviour="last row dropped"),
    "targets of the batch before": Fault(behaviour="old targets"),
    "patch embedding frozen": Fault(behaviour="frozen patches"),
    "weights packed at first inference after loading and kept": Fault(behaviour="packed once"),
    "answers remembered by their image": Fault(behaviour="remembered answers"),
    "moving average of weights in inference": Fault(behaviour="averaged inference"),
}


@dataclass(frozen=True)
class Work:
    """A value on the imaginary device, and when it will have been computed."""

    value: np.ndarray
    done_at: float


class ReferenceBackend:
    """shared_spec.backend.Backend in NumPy; `clock` tells its own time.

    With a group it averages loss and gradients over the ranks before the clip.
    """

    group: Group = ALONE
    averages = True

    def __init__(self, spec: Spec, device: str, precision: str, engine: str, fault: str = "none") -> None:
        self.fault = FAULTS[fault]
        self.spec, self.precision, self.engine = self.fault.spec(spec), precision, engine
        in_bf16 = {"product": bf16_product, "preprocess": _float32_preprocess}
        self.sound: dict[str, Any] = in_bf16 if precision == "bf16" else {}
        self.patches = self.sound | self.fault.patches(spec)
        self.in_step = False
        self.last_lr = self.peak = 0.0
        self.last_targets: np.ndarray | None = None
        self.answers: dict[bytes, Work] = {}
        self.now = self.busy_until = 0.0
        self.state: reference.State | None = None
        self.first_lr: float | None = None

    def clock(self) -> float:
        return self.now

    @contextlib.contextmanager
    def _faulty(self) -> Iterator[None]:
        patches = self.sound if self.fault.step_only and not self.in_step else self.patches
        with mock.patch.multiple(reference, **patches) if patches else contextlib.nullcontext():
            yield

    def _is(self, behaviour: str) -> bool:
        return self.fault.behaviour == behaviour

    def _dispatch(self, value: np.ndarray) -> Work:
        self.busy_until = max(self.busy_until, self.now) + WORK_SECONDS
        return Work(value, self.busy_until)

    def describe(self) -> dict[str, Any]:
        return {"framework": "numpy", "engine": self.engine}

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        canonical.check(self.spec, params, "load_params")
        values = {name: value.copy() for name, value in params.items()}
        if self._is("rounded parameters"):
            values = {name: rounded(value, 8) for name, value in values.items()}
        kept = self.state if self._is("kept moments") else None
        self.state = replace(kept, params=values) if kept else reference.State.start(values)
        self.inference_params = values
        self.packed_since_load: dict[int, Params] = {}

    def export_params(self) -> Params:
        exported = {name: value.copy() for name, value in self.state.params.items()}
        if self._is("lost parameter"):
            del exported["norm.bias"]
        return exported

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        names = canonical.shapes(self.spec)
        params, m, v = ({name: state[f"{slot}/{name}"].copy() for name in names} for slot in ("param", "m", "v"))
        self.state = reference.State(params, m, v, int(state["step"]))
        self.inference_params = params

    def export_state(self) -> dict[str, np.ndarray]:
        slots = {"param": self.state.params, "m": self.state.m, "v": self.state.v}
        arrays = {f"{slot}/{name}": value.copy() for slot, values in slots.items() for name, value in values.items()}
        return arrays | {"step": np.array(self.state.step, np.int64)}

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> HostBatch:
        if targets is not None and self._is("hard targets"):
            targets = np.eye(targets.shape[1], dtype=np.float32)[targets.argmax(-1)]
        return HostBatch(images, targets)

    def _loss_and_gradients(self, batch: HostBatch) -> tuple[float, Params]:
        rows = slice(-1) if self._is("last row dropped") else slice(None)
        with self._faulty():
            return reference.loss_and_gradients(self.spec, self.state.params, batch.images[rows], batch.targets[rows])

    def train_step(self, batch: HostBatch, lr: float) -> Work:
        batch, lr = self._mistaken(batch, lr)
        o, before = self.spec.optimizer, self.state.params
        self.in_step = True
        loss, gradients = self._loss_and_gradients(batch)
        loss = float(gathered(self.group, np.array(loss)).mean())
        if self.averages:
            gradients = {name: gathered(self.group, gradient).mean(0) for name, gradient in gradients.items()}
        with self._faulty():
            clipped, norm = reference.clip(gradients, o.clip_norm)
            self.state = reference.adamw(o, self.state, clipped, lr)
        self.in_step = False
        self._change_parameters(before, lr)
        if not self._is("stale inference"):
            self.inference_params = self.state.params
        if self._is("averaged inference"):
            self.inference_params = {name: 0.5 * (before[name] + p) for name, p in self.state.params.items()}
        return self._dispatch(
            np.array([loss, min(norm, o.clip_norm) if self._is("clipped norm") else norm], np.float32)
        )

    def _mistaken(self, batch: HostBatch, lr: float) -> tuple[HostBatch, float]:
        """The batch and the learning rate that a step takes in place of these."""
        last_lr, self.last_lr = self.last_lr, lr
        last_targets, self.last_targets = self.last_targets, batch.targets
        if self._is("frozen rate"):
            self.first_lr = lr = lr if self.first_lr is None else self.first_lr
        if self._is("late rate"):
            lr = last_lr
        if self._is("old targets") and last_targets is not None:
            batch = HostBatch(batch.images, last_targets)
        return batch, lr

    def _change_parameters(self, before: Params, lr: float) -> None:
        """What a step does to parameters besides its update."""
        params = self.state.params
        if self._is("peak decay"):
            self.peak = max(self.peak, lr)
            decay = (self.peak - lr) * self.spec.optimizer.weight_decay
            more = {name: params[name] - decay * p for name, p in before.items() if canonical.has_decay(name, p.shape)}
            self.state = replace(self.state, params=params | more)
        if self._is("frozen patches"):
            frozen = {name: p for name, p in before.items() if name.startswith("patch_embed")}
            self.state = replace(self.state, params=params | frozen)

    def gradients(self, batch: HostBatch) -> Params:
        gradients = self._loss_and_gradients(batch)[1]
        if self._is("nan gradients"):
            gradients["cls_token"][:] = np.nan
        return gradients

    def infer(self, batch: HostBatch) -> Work:
        if self._is("remembered answers") and (known := self.answers.get(batch.images.tobytes())):
            return known
        values = self.inference_params
        if self._is("packed once"):
            values = self.packed_since_load.setdefault(len(batch.images), values)
        with self._faulty():
            logits = self._dispatch(reference.forward(self.spec, values, batch.images)[0])
        self.answers[batch.images.tobytes()] = logits
        return logits

    def preprocess(self, batch: HostBatch) -> Work:
        with self._faulty():
            return self._dispatch(reference.preprocess(self.spec, batch.images, np.dtype(np.float32)))

    def synchronize(self, *handles: Work) -> None:
        if not self._is("no wait"):
            self.now = max([self.now, *(handle.done_at for handle in handles)])

    def to_numpy(self, handle: Work) -> np.ndarray:
        self.now = max(self.now, handle.done_at) + READ_SECONDS
        return handle.value

    def matmul(self, n: int) -> Work:
        product = bf16_product if self.precision == "bf16" else reference.product
        return self._dispatch(self.patches.get("product", product)(*self.matmul_operands(n)))

    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        a, b = np.random.default_rng(n).normal(size=(2, n, n)).astype(np.float32)
        return (rounded(a, 8), rounded(b, 8)) if self.precision == "bf16" else (a, b)

    def reset_peak_memory(self) -> None:
        """There is nothing to measure."""

    def communication(self) -> dict[str, float] | None:
        return None

    def memory(self) -> dict[str, int | None]:
        return {}
