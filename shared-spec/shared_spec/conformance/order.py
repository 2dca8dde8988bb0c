"""Infer, train, infer again: an answer is that of the parameters as they are, whatever was asked before."""

from collections.abc import Iterator

import numpy as np

from shared_spec.backend import Backend
from shared_spec.conformance.bounds import check, headroom
from shared_spec.conformance.error_measures import relative_error, unit_roundoff
from shared_spec.conformance.probes import BATCH, BackendSubject, ReferenceSubject, probe_batch
from shared_spec.results.quantities import Check
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

SIZES = (1, BATCH)
"""Batch sizes that are asked: the smallest, for which backends have programs and packed weights of their own."""
STEPS = 3
LEARNING_RATE = 0.01
"""Half the initial weights' size a step, so that old parameters, or their average with new ones, answer otherwise."""


def order_checks(backend: Backend, spec: Spec, precision: str) -> Iterator[Check]:
    """Logits of the same batches before and after a few training steps.

    What they are to be after them the reference says, with the parameters that the backend exports then; how far they
    may be off, the same parameters off by a rounding.
    """
    subject, batch = BackendSubject(backend), probe_batch(spec, 0)
    backend.load_params(params.initial(spec))
    resident = {size: backend.to_device(batch.images[:size], None) for size in SIZES}
    for images in resident.values():
        backend.to_numpy(backend.infer(images))
    for step in range(1, STEPS + 1):
        subject.step(probe_batch(spec, step), LEARNING_RATE)
    found = {size: backend.to_numpy(backend.infer(images)) for size, images in resident.items()}
    exact, perturbed = ReferenceSubject(spec), ReferenceSubject(spec, unit_roundoff(precision))
    for reference in (exact, perturbed):
        reference.load(backend.export_params())
    logits = exact.logits(batch)
    sensitivity = max(relative_error(perturbed.logits(batch), logits), unit_roundoff(precision))
    for size, answer in found.items():
        error = relative_error(answer, logits[:size]) if answer.shape == logits[:size].shape else np.inf
        detail = f"relative error (L2) of logits after {STEPS} steps, the same batch having been asked before them"
        yield check(f"infer, train, infer, batch {size}", error, headroom(spec, precision) * sensitivity, detail)
