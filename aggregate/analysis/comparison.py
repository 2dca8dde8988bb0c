"""All that is known of some results together, before it takes a form."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pandas as pd

from aggregate.analysis import answer, baseline, earlier, losses, merging, ratios, sections
from aggregate.analysis.answer import Answer, Key
from aggregate.analysis.earlier import Earlier
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from aggregate.analysis.reading import Problem
from aggregate.analysis.registry import METRIC
from aggregate.analysis.result import Result
from aggregate.analysis.sections import Section
from aggregate.analysis.summary import summary
from shared_spec.results.prices import Prices


def _now() -> datetime:
    """UTC time; that of SOURCE_DATE_EPOCH where this is set, as reproducible builds have it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)


@dataclass(frozen=True)
class Comparison:
    """Some results, compared.

    Attributes:
        runs: in the order of their letters.
        sections: those of them that may stand in one table.
        baselines: what the runs of each section are compared with, by title of the section; None where nothing is.
        ratios: by run letter and metric.
        summary: the data frame of aggregate.analysis.summary.
        prices: what cost is reckoned with.
        problems: of the files that are not compared.
        earlier: valid results that newer ones have taken the place of.
        made: when, UTC; SOURCE_DATE_EPOCH stands for the clock where it is set.
    """

    runs: list[Run]
    sections: list[Section]
    baselines: dict[str, Run | None]
    ratios: dict[tuple[str, str], Ratio]
    summary: pd.DataFrame
    prices: Prices
    problems: list[Problem]
    earlier: list[Earlier] = field(default_factory=list)
    made: datetime = field(default_factory=_now)

    @cached_property
    def answers(self) -> dict[str, dict[Key, Answer]]:
        """The benchmark's questions, answered by title of the section; none where conformance failed."""
        return {section.title: answer.answers(section.runs) if section.comparable else {} for section in self.sections}

    @cached_property
    def divergences(self) -> dict[str, list[Divergence]]:
        """How far losses are apart, by title of the section; those between precisions stand with the later section."""
        by_title: dict[str, list[Divergence]] = {}
        for i, section in enumerate(self.sections):
            earlier = [s for s in self.sections[:i] if s.comparable and s.fingerprint == section.fingerprint]
            siblings = [run for s in earlier for run in s.runs]
            by_title[section.title] = losses.divergences(section.runs, siblings) if section.comparable else []
        return by_title

    @cached_property
    def warnings(self) -> list[str]:
        """What speaks against a run or a figure: "B: the machine ran on its battery"."""
        texts = [f"{run.letter}: {note}" for run in self.runs for note in run.notes]
        for run in self.runs:
            texts += [f"{run.letter}: conformance {run.conformance[1]}"] * (run.conformance[0] == "failed")
            figures = [f for (key, _), repeats in run.figures.items() if METRIC[key].warns for f in repeats]
            texts += [f"{run.letter}: {note}" for figure in figures for note in figure.notes]
        return list(dict.fromkeys(texts))


def compare(
    results: Sequence[Result],
    problems: Sequence[Problem],
    prices: Prices,
    wanted_baseline: str = "",
    *,
    everything: bool = False,
) -> Comparison:
    """Group and derive everything there is to say of some results, at least one.

    Args:
        results: valid ones.
        problems: of the files that are not compared.
        prices: what cost is reckoned with.
        wanted_baseline: what the user calls the run that the others are measured against; empty for the fastest.
        everything: whether results that newer ones have taken the place of are compared too.

    Raises:
        UserError: no run is called `wanted_baseline`, or several are.
    """
    standing, back = (list(results), []) if everything else earlier.step_back(results)
    runs = merging.runs(standing, prices)
    apart = sections.sections(runs)
    wanted = baseline.named(wanted_baseline, runs)
    baselines: dict[str, Run | None] = {}
    against: dict[tuple[str, str], Ratio] = {}
    for section in apart:
        compared_with = baseline.baseline_of(section, wanted) if section.comparable else None
        baselines[section.title] = compared_with
        against |= ratios.ratios(section.runs, compared_with) if compared_with else {}
    columns = {key: _columns(ratio) for key, ratio in against.items()}
    return Comparison(runs, apart, baselines, against, summary(runs, columns), prices, list(problems), back)


def _columns(ratio: Ratio) -> dict[str, Any]:
    return {
        "baseline": ratio.baseline, "ratio": ratio.ratio, "ratio_low": ratio.low, "ratio_high": ratio.high,
        "ratio_p": ratio.p, "ratio_method": ratio.method, "verdict": ratio.verdict,
    }  # fmt: skip
