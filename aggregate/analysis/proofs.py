"""Whether a result proves what it says: its bounds and its losses are found again here, not taken at its word."""

from collections.abc import Iterator, Sequence
from functools import cache

from aggregate.analysis.plausibility import world_size
from aggregate.analysis.standard import is_standard, standard
from shared_spec.conformance import caps
from shared_spec.conformance.losses import Losses, are_kept, golden_losses
from shared_spec.conformance.timed import losses_checks
from shared_spec.results.format import AnyOutcome, Result, UsedData
from shared_spec.results.measurements import Conformance, Convergence, MaxBatch, Measurements, Training
from shared_spec.results.quantities import Check
from shared_spec.workload.spec import Precision


def objections(result: Result) -> list[str]:
    """Sentences on what the proofs of a result of the standard workload lack; none for another workload."""
    if not is_standard(result.spec.content):
        return []
    found = dict.fromkeys(_loose_bounds(result))
    for outcome in result.phases:
        found |= dict.fromkeys(_other_losses(result, outcome))
    return list(found)


def _loose_bounds(result: Result) -> Iterator[str]:
    for outcome in result.phases:
        for check in _checks(outcome.measurements) if outcome.measurements else ():
            cap = caps.largest_bound(check.name, standard(), result.precision, world_size(result))
            if cap is not None and caps.exceeds(check.bound, cap):
                yield f"{outcome.phase}: {check.name} has a bound of {check.bound:.3g} where this workload's is {cap:.3g}"


def _checks(measured: Measurements) -> Sequence[Check]:
    if isinstance(measured, MaxBatch):
        return [check for one in measured.tries if one.measurements for check in one.measurements.checks or ()]
    return measured.checks if isinstance(measured, Conformance) else measured.checks or ()


def _other_losses(result: Result, outcome: AnyOutcome) -> Iterator[str]:
    """Losses that the reference did not have on the same batches, or the word of other data."""
    measured = outcome.measurements
    if not isinstance(measured, Training | Convergence):
        return
    if not measured.loss_trace:
        yield f"{outcome.phase}, seed {outcome.seed}: no loss was kept, so nothing shows what it trained"
    expected = _golden(
        result.data.source, tuple(sorted(result.data.checksums.items())), measured.batch_size, outcome.seed
    )
    if expected is None:
        ours = standard().training.batch_size == measured.batch_size
        if ours and are_kept(result.data.source, outcome.seed):
            yield f"the checksums of its data are not those of {result.data.source}"
        return
    norms = measured.norm_trace if isinstance(measured, Training) else None
    found = {"loss": measured.loss_trace, "norm": norms or ()}
    for check in losses_checks(standard(), result.precision, expected, found, world_size(result)):
        if not check.passed:
            yield f"{outcome.phase}, seed {outcome.seed}: {_missed(check, result.precision)}"


def _missed(check: Check, precision: Precision) -> str:
    figure = "not finite" if check.figure is None else f"{check.figure:.3g}"
    what = check.name.removeprefix("golden ")
    return f"its {what} are not the reference's ({figure}, bound {check.bound:.3g} in {precision}; {check.detail})"


@cache
def _golden(source: str, checksums: tuple[tuple[str, str], ...], batch_size: int, seed: int) -> Losses | None:
    data = UsedData.model_construct(source=source, checksums=dict(checksums))
    return golden_losses(standard(), data, batch_size, seed)
