"""Infer, train, infer again: an answer is that of the parameters as they are, whatever was asked before."""

from collections.abc import Iterator

import numpy as np

from shared_spec.backend import Backend
from shared_spec.conformance.bounds import check, headroom
from shared_spec.conformance.error_measures import relative_error, unit_roundoff
from shared_spec.conformance.probes import BATCH, BackendSubject, ReferenceSubject, probe_batch
from shared_spec.data.batches import HostBatch
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec

SIZES = (1, BATCH)
"""Batch sizes that are asked: the smallest, for which backends have programs and packed weights of their own."""
STEPS = 3
LEARNING_RATE = 0.01
"""Half the initial weights' size a step, so that old parameters, or their average with new ones, answer otherwise."""


def order_checks(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """Logits of a batch before and after a few training steps.

    One size after the other, as a backend may keep the weights of that alone which was asked for last. What the logits
    are to be after the steps the reference says, with the parameters that the backend exports then; how far they may
    be off, the same parameters off by a rounding.
    """
    subject, first = BackendSubject(backend), probe_batch(spec, 0)
    for size in SIZES:
        asked = HostBatch(first.images[:size], first.targets[:size])
        backend.load_params(params.initial(spec))
        resident = backend.to_device(asked.images, None)
        backend.to_numpy(backend.infer(resident))
        for step in range(1, STEPS + 1):
            subject.step(probe_batch(spec, step), LEARNING_RATE)
        found = backend.to_numpy(backend.infer(resident))
        trained = backend.export_params()
        exact, rounded = (_logits(spec, u, trained, asked) for u in (0.0, unit_roundoff(precision)))
        bound = headroom(spec, precision) * max(relative_error(rounded, exact), unit_roundoff(precision))
        error = relative_error(found, exact) if found.shape == exact.shape else np.inf
        detail = f"relative error (L2) of logits after {STEPS} steps, the same batch having been asked before them"
        yield check(f"infer, train, infer, batch {size}", error, bound, detail)


def _logits(spec: Spec, u: float, values: Params, batch: HostBatch) -> np.ndarray:
    reference = ReferenceSubject(spec, u)
    reference.load(values)
    return reference.logits(batch)
