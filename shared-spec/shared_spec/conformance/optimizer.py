"""What a training step's optimiser does, from the parameters and moments before it and after it alone."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from shared_spec.backend import Backend
from shared_spec.conformance.bounds import check, norm_rounding, worst
from shared_spec.conformance.error_measures import relative_error, unit_roundoff
from shared_spec.conformance.probes import BackendSubject, large_weights, learning_rates, probe_batch
from shared_spec.results.quantities import Check
from shared_spec.workload import params, reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec


def check_weight_decay(backend: Backend, spec: Spec) -> Check:
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
    found = {}
    for name, value in before.items():
        if name not in (*norm, "head.bias"):
            decay = o.weight_decay if params.has_decay(name, value.shape) else 0.0
            error = relative_error(after[name], value.astype(np.float64) * (1 - lr * decay))
            found[name] = error, 8 * unit_roundoff("fp32")
    return worst("weight decay", found)


def check_adamw(backend: Backend, spec: Spec) -> Check:
    """The first update, against what the backend's own moments demand; so free of the gradients' errors.

    The targets are nearly flat and the gradients small, so that eps shows. About 10 roundings to float32 make the
    step, 3 more its sum with the decayed parameter, each of up to u of the parameter.
    """
    lr, u = max(learning_rates(spec)), unit_roundoff("fp32")
    before = params.initial(spec)
    backend.load_params(before)
    BackendSubject(backend).step(probe_batch(spec, 1), lr)
    after = {key: value.astype(np.float64) for key, value in backend.export_state().items()}
    found = {}
    for name, value in before.items():
        p, m, v = value.astype(np.float64), after[f"m/{name}"], after[f"v/{name}"]
        step = reference.updated(spec.optimizer, name, p, m, v, 1, lr) - p
        bound = (10 + 3 * float(np.linalg.norm(p) / np.linalg.norm(step))) * u
        found[name] = relative_error(after[f"param/{name}"] - p, step), bound
    return worst("AdamW", found)


def check_second_step(backend: Backend, spec: Spec) -> Iterator[Check]:
    """The step after `check_adamw`'s, at half its rate: moments that are no longer zero are kept in float32."""
    lr, batch = max(learning_rates(spec)) / 2, probe_batch(spec, 0)
    yield from step_checks("second step", backend, spec, lambda: BackendSubject(backend).step(batch, lr), lr)


def step_checks(
    name: str, backend: Backend, spec: Spec, step: Callable[[], tuple[float, float]], lr: float
) -> Iterator[Check]:
    """Any training step: does it do everything that the optimiser is to do, to the last digit of float32?

    Parameters and moments before and after tell what the step did. What it added to the first moments is its clipped
    gradient, up to the roundings of these moments; second moments and parameters must follow from it, and its size
    from the norm that the step reports.

    Args:
        step: makes it, with the learning rate `lr`; loss and gradient norm.
    """
    o, u = spec.optimizer, unit_roundoff("fp32")
    state = backend.export_state()
    before, number = _slots(spec, state), int(state["step"]) + 1
    loss, norm = step()
    after = _slots(spec, backend.export_state())
    gradients = {key: (m - o.beta1 * before["m"][key]) / (1 - o.beta1) for key, m in after["m"].items()}
    size = _norm(gradients.values())
    noise = _norm(4 * u * np.abs(m) / (1 - o.beta1) for m in before["m"].values())
    clipped = min(1.0, o.clip_norm / (norm + 1e-6)) * norm
    bound = norm_rounding(spec) + noise / (clipped if clipped > 0 else o.clip_norm) + 4 * u  # also where it is NaN
    detail = f"relative error of the clipped gradient's norm, of {norm:.3g} before; loss {loss:.4g}"
    yield check(f"{name}, clip", abs(size / clipped - 1), bound, detail)
    yield worst(f"{name}, second moments", _second_moment_errors(spec, before, after, gradients))
    yield worst(f"{name}, parameters", _update_errors(spec, before, after, number, lr))


def _norm(arrays: Iterable[np.ndarray]) -> float:
    return math.sqrt(sum(float((array**2).sum()) for array in arrays))


def _slots(spec: Spec, state: dict[str, np.ndarray]) -> dict[str, Params]:
    names = params.shapes(spec)
    return {slot: {name: state[f"{slot}/{name}"].astype(np.float64) for name in names} for slot in ("param", "m", "v")}


def _second_moment_errors(
    spec: Spec, before: dict[str, Params], after: dict[str, Params], gradients: Params
) -> dict[str, tuple[float, float]]:
    """Error and bound for each parameter: each v is rounded twice, and the gradient known to 4 u |m| / (1 - beta1)."""
    o, u, found = spec.optimizer, unit_roundoff("fp32"), {}
    for name, g in gradients.items():
        exact = o.beta2 * before["v"][name] + (1 - o.beta2) * g * g
        unsure = 4 * u * (np.abs(before["m"][name]) + np.abs(after["m"][name])) / (1 - o.beta1)
        bound = 4 * u * exact + (1 - o.beta2) * (2 * np.abs(g) + unsure) * unsure + np.finfo(np.float32).tiny
        found[name] = _of_size(after["v"][name] - exact, bound, exact)
    return found


def _update_errors(
    spec: Spec, before: dict[str, Params], after: dict[str, Params], step: int, lr: float
) -> dict[str, tuple[float, float]]:
    """Error and bound for each parameter: 10 roundings make the step, 3 more its sum with the decayed parameter."""
    u, found = unit_roundoff("fp32"), {}
    for name, p in before["param"].items():
        exact = reference.updated(spec.optimizer, name, p, after["m"][name], after["v"][name], step, lr) - p
        bound = u * (10 * np.abs(exact) + 3 * np.abs(p))
        found[name] = _of_size(after["param"][name] - p - exact, bound, exact)
    return found


def _of_size(error: np.ndarray, bound: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """L2 norms of an error and of its bound, relative to what is exact."""
    size = max(float(np.linalg.norm(exact)), 1e-300)
    return float(np.linalg.norm(error)) / size, float(np.linalg.norm(bound)) / size
