"""All that is known of some results together, before it takes a form."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from aggregate.analysis import answer, baseline, losses, merging, ratios, sections
from aggregate.analysis.answer import Answer, Key
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from aggregate.analysis.reading import Problem
from aggregate.analysis.registry import METRIC
from aggregate.analysis.result import Result
from aggregate.analysis.sections import Section
from aggregate.analysis.summary import summary
from shared_spec.results.prices import Prices


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
    """

    runs: list[Run]
    sections: list[Section]
    baselines: dict[str, Run | None]
    ratios: dict[tuple[str, str], Ratio]
    summary: pd.DataFrame
    prices: Prices
    problems: list[Problem]

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
    results: Sequence[Result], problems: Sequence[Problem], prices: Prices, wanted_baseline: str = ""
) -> Comparison:
    """Group and derive everything there is to say of some results, at least one.

    Raises:
        UserError: no run is called `wanted_baseline`, or several are.
    """
    runs = merging.runs(results, prices)
    apart = sections.sections(runs)
    wanted = baseline.named(wanted_baseline, runs)
    baselines: dict[str, Run | None] = {}
    against: dict[tuple[str, str], Ratio] = {}
    for section in apart:
        compared_with = baseline.baseline_of(section, wanted) if section.comparable else None
        baselines[section.title] = compared_with
        against |= ratios.ratios(section.runs, compared_with) if compared_with else {}
    columns = {key: _columns(ratio) for key, ratio in against.items()}
    return Comparison(runs, apart, baselines, against, summary(runs, columns), prices, list(problems))


def _columns(ratio: Ratio) -> dict[str, Any]:
    return {
        "baseline": ratio.baseline, "ratio": ratio.ratio, "ratio_low": ratio.low, "ratio_high": ratio.high,
        "ratio_p": ratio.p, "ratio_method": ratio.method, "verdict": ratio.verdict,
    }  # fmt: skip
