"""Every figure of a result, derived from its raw samples."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from aggregate.analysis.metrics import NOT_RUN, Figure, absent, all_absent
from aggregate.analysis.phase import Phase, Source
from aggregate.analysis.plausibility import world_size
from aggregate.analysis.registry import METRIC, PHASES
from aggregate.analysis.result import Result
from shared_spec.results.format import Done
from shared_spec.results.prices import Prices
from shared_spec.results.stability import interval_width


def derive(result: Result, prices: Prices) -> list[Figure]:
    """All figures of a result in the order of the tables, several of one metric (and batch size) where it was repeated.

    A phase that failed or was not run gives figures without a value, which say why.
    """
    figures: list[Figure] = []
    for phase in PHASES:
        outcomes = result.outcomes(phase.name)
        if not outcomes:
            figures += _missing(phase, f"the {phase.name} {NOT_RUN}")
        of_phase: list[Figure] = []
        for outcome in outcomes:
            if isinstance(outcome, Done):
                derived = map(_finite, phase.derive(outcome.measurements, Source(result.content, outcome, prices)))
                figures_of_outcome = [_of_ranks(figure, world_size(result.content)) for figure in derived]
            else:
                figures_of_outcome = list(_missing(phase, f"the {phase.name} phase failed: {outcome.reason}"))
            seed = outcome.seed if phase.seeded else None
            of_phase += [dataclasses.replace(figure, seed=seed) for figure in figures_of_outcome]
        figures += _agreed(phase, of_phase, result)
    return figures


def _agreed(phase: Phase[Any], figures: list[Figure], result: Result) -> list[Figure]:
    """The figures of a phase; what repeats it was to agree on says so where it does not."""
    values = [figure.value for figure in figures if figure.metric == phase.repeated and not figure.reason]
    if len(values) < 2 or any(one.phase == phase.name for one in result.content.missing or ()):
        return figures
    width, tolerance = interval_width(values), result.spec.measuring.interval_tolerance
    if width <= tolerance:
        return figures
    note = (
        f"its {len(values)} repeats ended with a 95 % interval of their mean {100 * width:.1f} % wide, more than the "
        f"{100 * tolerance:g} % that is asked for"
    )
    return [
        dataclasses.replace(figure, notes=(*figure.notes, note)) if figure.metric == phase.repeated else figure
        for figure in figures
    ]


def _missing(phase: Phase[Any], reason: str) -> Iterator[Figure]:
    return all_absent([metric.key for metric in phase.metrics], reason)


def _finite(figure: Figure) -> Figure:
    """A file can hold times so short or numbers so large that a rate overflows; that is no figure."""
    if math.isfinite(figure.value) or figure.reason:
        return figure
    return absent(figure.metric, "what was recorded gives no finite figure", figure.n, batch_size=figure.batch_size)


def _of_ranks(figure: Figure, size: int) -> Figure:
    """What is known of rank 0 alone is marked so, and what would need the other ranks' too is withheld."""
    known = METRIC[figure.metric].of_ranks
    if size == 1 or figure.reason or not known:
        return figure
    if known == "withheld":
        reason = f"known for rank 0 only, and {size} ranks shared the work"
        return dataclasses.replace(figure, value=math.nan, reason=reason)
    return dataclasses.replace(figure, notes=(*figure.notes, "of rank 0"))
