"""Golden losses: what the float64 reference finds in the first steps of a training on the real batches.

Conformance asks on generated inputs at batch 4. These prove the training that is timed: its own batches, at its own
batch size, step after step. Those of the standard workload for the seeds that profiles use first are committed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.numpy

from shared_spec.conformance.error_measures import unit_roundoff
from shared_spec.conformance.probes import ReferenceSubject
from shared_spec.data.batches import TrainingBatches
from shared_spec.data.dataset import Dataset
from shared_spec.measure.timing import Progress, silent
from shared_spec.workload import params
from shared_spec.workload.arrays import NUMPY, Arrays
from shared_spec.workload.spec import PRECISIONS, Spec

LOSSES_FORMAT = 1
"""To be raised with every change of the reference's answers or of what a file holds."""
LOSSES_FOLDER = Path(__file__).parent / "golden"
DRAWS = 2
"""Perturbed trainings for each precision: one alone may happen to cross the exact one."""
FIGURES = ("loss", "norm")
"""Mean loss of a step, and the gradients' norm before clipping."""

Losses = dict[str, np.ndarray]
"""float64 arrays: FIGURE/value [steps], and FIGURE/fp32 and FIGURE/bf16 [DRAWS, steps], the relative changes of these
values that perturbations of the size of a rounding make."""


class Identified(Protocol):
    """Data, or what names them: a dataset.Dataset, a dataset.Identity, or what a result says of its data."""

    @property
    def source(self) -> str: ...
    @property
    def checksums(self) -> Mapping[str, str]: ...


def losses_path(spec: Spec, data: Identified, batch_size: int, seed: int) -> Path:
    """File of the golden losses of a training; its name ends with the fingerprint of all that they depend on."""
    content = spec.to_dict()
    depends = {key: content[key] for key in ("model", "init", "data", "optimizer", "schedule")}
    short = [LOSSES_FORMAT, DRAWS, depends, content["training"]["epochs"], batch_size, seed, dict(data.checksums)]
    print_ = hashlib.sha256(json.dumps(short, sort_keys=True).encode()).hexdigest()[:16]
    return LOSSES_FOLDER / f"losses-{data.source}-seed-{seed}-{print_}.safetensors"


def golden_losses(spec: Spec, data: Identified, batch_size: int, seed: int) -> Losses | None:
    """The golden losses of a training, as far as they are kept."""
    path = losses_path(spec, data, batch_size, seed)
    return safetensors.numpy.load_file(path) if path.exists() else None


def are_kept(source: str, seed: int) -> bool:
    """Whether there are golden losses of a seed on the data of that name, whatever exactly these are."""
    return any(LOSSES_FOLDER.glob(f"losses-{source}-seed-{seed}-*.safetensors"))


def compute_losses(
    spec: Spec, data: Dataset, batch_size: int, seed: int, arrays: Arrays = NUMPY, progress: Progress = silent
) -> Losses:
    """Train the reference for `loss_trace_steps` steps, exactly and perturbed.

    For the standard spec some 88 TFLOP in float64, five times over, and 12 GiB of memory.
    """
    steps = spec.measuring.loss_trace_steps
    roundoffs = {name: unit_roundoff(name) for name in PRECISIONS}
    runs = [("value", 0.0, 0)] + [(name, u, draw) for name, u in roundoffs.items() for draw in range(DRAWS)]
    traces: dict[str, list[np.ndarray]] = {}
    for i, (name, u, draw) in enumerate(runs):
        batches = TrainingBatches(spec, data.train_images, data.train_labels, batch_size, seed)
        subject = ReferenceSubject(spec, u, draw, arrays)
        subject.load(params.initial(spec))
        trace = []
        for step in range(steps):
            progress((i + step / steps) / len(runs), f"reference: {name} {draw}, training step {step + 1} of {steps}")
            trace.append(subject.step(batches.batch(step), spec.learning_rate(step, batch_size)))
        traces.setdefault(name, []).append(np.array(trace).T)  # [FIGURES, steps]
    (exact,) = traces["value"]
    values: Losses = {}
    for i, figure in enumerate(FIGURES):
        values[f"{figure}/value"] = exact[i].copy()
        for name in PRECISIONS:
            values[f"{figure}/{name}"] = np.array([np.abs(trace[i] / exact[i] - 1) for trace in traces[name]])
    return values
