"""What of each phase is looked at when its measuring is over and its memory has been read."""

import traceback
from collections.abc import Callable, Iterator
from typing import Any

from shared_spec.conformance import timed
from shared_spec.conformance.losses import golden_losses
from shared_spec.data.batches import HostBatch
from shared_spec.ranks import RanksApart
from shared_spec.results import privacy
from shared_spec.results.measurements import Ceiling, Convergence, Training
from shared_spec.results.quantities import Check
from shared_spec.run.context import Context

Proof = Callable[[Context, Any], Iterator[Check]]
LARGEST_PRODUCT = 4096
"""A larger one is not fetched to the host."""


def ceiling(context: Context, measured: Ceiling) -> Iterator[Check]:
    """The largest timed product that can be fetched."""
    sizes = [size.n for size in measured.sizes]
    n = max([size for size in sizes if size <= LARGEST_PRODUCT] or [min(sizes)])
    yield timed.product_check(context.backend, context.job.setting.precision, n)


def training(context: Context, measured: Training) -> Iterator[Check]:
    """The losses of the first steps, and one step more."""
    yield from _losses(context, {"loss": measured.loss_trace, "norm": measured.norm_trace or ()})
    trainer = context.trained
    assert trainer is not None
    batch: HostBatch = next(trainer.batches)
    lr = context.spec.learning_rate(trainer.step_number, trainer.batch_size)
    yield from timed.late_step_checks(context.backend, context.spec, batch, lr)


def convergence(context: Context, measured: Convergence) -> Iterator[Check]:
    """The losses of the first steps, and the evaluations' counts."""
    yield from _losses(context, {"loss": measured.loss_trace})
    yield timed.evaluation_check(context.spec, measured)


def inference(context: Context, measured: object) -> Iterator[Check]:
    """What timed calls answered, and their programs again with other parameters; of latency too."""
    spec, precision, seen = context.spec, context.job.setting.precision, context.timed_calls
    yield from timed.timed_calls_checks(context.backend, spec, precision, seen, context.progress)
    each = [one for one in seen if one.what not in ("host to host", "device only")] or [_single(seen)]
    yield from timed.program_checks(context.backend, spec, precision, each)


def _single(seen: list[Any]) -> Any:
    """One call of the latency phase, at the batch size it was timed at."""
    first = seen[0]
    return type(first)("batch 1", first.images[:1], first.logits[:1])


def max_batch(context: Context, measured: object) -> Iterator[Check]:
    """The losses of the steps that were made."""
    assert context.trained is not None
    yield from timed.range_checks(context.spec, *context.trained.losses_and_norms())


def _losses(context: Context, found: dict[str, Any]) -> Iterator[Check]:
    job, which = context.job, context.which
    assert which is not None
    expected = golden_losses(context.spec, which, job.batch_size, job.seed)
    if expected is not None:
        setting = job.setting
        yield from timed.losses_checks(context.spec, setting.precision, expected, found, context.backend.group.size)


def complete(proof: Proof, context: Context, measured: Any) -> Iterator[Check]:
    """The checks of a proof; where it cannot be given that is a check too, which fails, and the measurements stay."""
    try:
        yield from proof(context, measured)
    except RanksApart:
        raise
    except Exception as error:
        traceback.print_exc()
        detail = privacy.scrub(f"the outputs could not be looked at: {type(error).__name__}: {error}")[:4000]
        yield Check(name="proof", passed=False, figure=None, bound=0.0, detail=detail)


def unchecked(context: Context, phase: str) -> str | None:
    """What no check is made of, and why; None where there is nothing to say."""
    job, which = context.job, context.which
    if phase not in ("training", "convergence") or which is None:
        return None
    if golden_losses(context.spec, which, job.batch_size, job.seed) is not None:
        return None
    return (
        f"no golden losses of seed {job.seed}, batch {job.batch_size}, data {which.source} for this workload: "
        "the losses were compared with nothing"
    )
