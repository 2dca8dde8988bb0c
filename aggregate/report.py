"""Writes report/: the comparison as a page, as Markdown and CSV, and the plots."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from aggregate import compare, html, plots, ratios, scaling, tables
from aggregate.compare import Parting, Run, Section
from aggregate.metrics import METRICS, PHASES
from aggregate.plots import Plot
from aggregate.ratios import Ratio
from aggregate.reading import Problem, Result
from aggregate.tables import escape_markdown as escaped
from shared_spec import files as shared_files
from shared_spec.errors import UserError
from shared_spec.results.prices import Prices

OWN_PLOT = re.compile(rf"({'|'.join(kind.stem for kind in plots.KINDS)})(-[0-9a-f]{{12}})?(-bf16)?\.(png|svg)")
"""Names of the plots that a report writes, and so may remove when it is made anew."""
TITLE = "DeiT-small on CIFAR-100: comparison"
WARNED_ABOUT = ("training_throughput", "efficiency", "latency_median", "inference_throughput")
"""Metrics whose notes are warnings; those of others only say what was measured."""
MAX_PAIRS = 66
"""Pairs of loss traces listed: all of twelve runs."""


@dataclass(frozen=True)
class Comparison:
    """All that is shown, before it takes a form.

    Attributes:
        title: of the report.
        baselines: what the runs of each section are compared with, by title of the section; None where nothing is.
        ratios: by run letter and metric.
        summary: the data frame of aggregate.compare.summary.
        problems: of the files that are not compared.
    """

    title: str
    runs: list[Run]
    sections: list[Section]
    baselines: dict[str, Run | None]
    ratios: dict[tuple[str, str], Ratio]
    summary: pd.DataFrame
    prices: Prices
    problems: list[Problem]

    @cached_property
    def partings(self) -> dict[str, list[Parting]]:
        """How far losses part, by title of the section; those between precisions stand with the later section."""
        found: dict[str, list[Parting]] = {}
        for i, section in enumerate(self.sections):
            earlier = [s for s in self.sections[:i] if s.comparable and s.fingerprint == section.fingerprint]
            siblings = [run for s in earlier for run in s.runs]
            found[section.title] = compare.partings(section.runs, siblings) if section.comparable else []
        return found

    def headline(self, section: Section) -> tables.Table:
        """The benchmark's six metrics."""
        return self._table(section.title, section.runs, tables.HEADLINE, section.reason)

    def details(self, section: Section) -> tables.Table:
        """Every figure of every phase."""
        return self._table("In detail", section.runs)

    def phases(self, section: Section) -> list[tables.Table]:
        """The same, a table for each phase that any run had."""
        each = [
            self._table(
                phase.replace("_", " ").capitalize(), section.runs, [m.key for m in METRICS if m.phase == phase]
            )
            for phase in PHASES
            if any(run.outcomes(phase) for run in section.runs)
        ]
        return [table for table in each if table.rows]

    def subtables(self, section: Section) -> list[tables.Table]:
        """Ratios against the baseline, scaling, and who shares hardware or framework with whom."""
        if not section.comparable:
            return []
        found = []
        if (baseline := self.baselines[section.title]) and len(section.runs) > 1:
            title = f"Times as fast as {baseline.letter} ({name(baseline)})"
            found.append(tables.of_ratios(title, section.runs, baseline, self.ratios))
        found += [scaling.table(each) for each in scaling.scalings(section.runs)]
        for words, groups in (
            ("Same hardware", compare.same_hardware(section.runs)),
            ("Same framework", compare.same_framework(section.runs)),
        ):
            found += [
                self._table(f"{words}: {shared}", runs, tables.HEADLINE)
                for shared, runs in groups
                if len(runs) < len(section.runs)
            ]
        return found

    def _table(self, title: str, runs: Sequence[Run], keys: Sequence[str] = (), reason: str = "") -> tables.Table:
        return tables.build(title, reason, runs, self.summary, keys)


def name(run: Run) -> str:
    """What ran on what, in words."""
    words = (run.content["platform"], run.content["engine"], run.hardware.short, run.ranks.words)
    return ", ".join(filter(None, dict.fromkeys(words)))


def compared(
    results: Sequence[Result],
    problems: Sequence[Problem],
    prices: Prices,
    wanted_baseline: str = "",
    title: str = TITLE,
) -> Comparison:
    """Group and derive everything there is to say of some results, at least one.

    Raises:
        UserError: there is no run called `wanted_baseline`.
    """
    runs = compare.runs(results, prices)
    sections = compare.sections(runs)
    baselines: dict[str, Run | None] = {}
    found: dict[tuple[str, str], Ratio] = {}
    for section in sections:
        baseline = ratios.baseline_of(section, wanted_baseline, runs) if section.comparable else None
        baselines[section.title] = baseline
        found |= ratios.ratios(section.runs, baseline) if baseline else {}
    columns = {key: _columns(ratio) for key, ratio in found.items()}
    return Comparison(
        title, runs, sections, baselines, found, compare.summary(runs, columns), prices, list(problems)
    )  # fmt: skip


def _columns(ratio: Ratio) -> dict[str, Any]:
    return {
        "baseline": ratio.baseline, "ratio": ratio.ratio, "ratio_low": ratio.low, "ratio_high": ratio.high,
        "ratio_method": ratio.method, "verdict": ratio.verdict,
    }  # fmt: skip


def shared_sentences(section: Section) -> list[str]:
    """Said where all runs of a section share their hardware or their framework."""
    return [
        f"All of these ran on the same {shared}: {groups[0][0]}. What differs is the {other}."
        for shared, other, groups in (
            ("hardware", "software", compare.same_hardware(section.runs)),
            ("framework", "hardware", compare.same_framework(section.runs)),
        )
        if len(groups) == 1 and len(groups[0][1]) == len(section.runs)
    ]


def parting_sentence(parting: Parting) -> str:
    """How far two loss traces part."""
    a, b = parting.first, parting.second
    precisions = sorted({a.content["precision"], b.content["precision"]}, reverse=True)
    who = f"{a.letter} and {b.letter} ({' against '.join(precisions)})"
    over = f"{parting.steps:,} common steps of {parting.seeds:,} seed{'s' * (parting.seeds != 1)}"
    unequal = f"; in {parting.unequal:,} steps only one of the two is finite" if parting.unequal else ""
    if math.isnan(parting.relative):
        return f"{who}: no common step with a finite loss{unequal}"
    apart = f"at most {parting.relative:.2g} apart, relative, over {over}"
    return f"{who}: {apart} (seed {parting.seed}, step {parting.step}){unequal}"


def _width(parting: Parting) -> float:
    """To sort by: two traces of which only one is finite somewhere are infinitely far apart."""
    return math.inf if parting.unequal or math.isnan(parting.relative) else parting.relative


def sentences(section: Section, found: Sequence[Parting]) -> list[str]:
    """What the terminal says below the table of a section: shared hardware, and the widest parting of losses."""
    said = shared_sentences(section)
    for mixed, text in ((False, "Losses of one precision"), (True, "Losses across precisions")):
        of_kind = [p for p in found if (p.first.content["precision"] != p.second.content["precision"]) is mixed]
        if of_kind:
            widest = max(of_kind, key=_width)
            among = f", the furthest apart of {len(of_kind):,} pairs" if len(of_kind) > 1 else ""
            said.append(f"{text}{among}: {parting_sentence(widest)}.")
    return said


def warnings(comparison: Comparison) -> list[str]:
    """What speaks against a run or a figure: "B: the machine ran on its battery"."""
    found = [f"{run.letter}: {note}" for run in comparison.runs for note in run.notes]
    for run in comparison.runs:
        found += [f"{run.letter}: conformance {run.conformance[1]}"] * (run.conformance[0] == "failed")
        figures = [f for (key, _), repeats in run.figures.items() if key in WARNED_ABOUT for f in repeats]
        found += [f"{run.letter}: {note}" for figure in figures for note in figure.notes]
    return list(dict.fromkeys(found))


def as_text(comparison: Comparison, drawn: Sequence[list[Plot]], form: str) -> str:
    """The comparison as "markdown", "csv", "json" or "html"."""
    if form == "markdown":
        return markdown(comparison, drawn)
    if form == "html":
        return html_page(comparison, drawn)
    if form == "csv":
        return tables.csv(comparison.summary)
    content = {
        "title": comparison.title,
        "figures": json.loads(comparison.summary.to_json(orient="records")),
        "problems": [_without_folder(problem) for problem in comparison.problems],
        "warnings": warnings(comparison),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write(comparison: Comparison, out: Path) -> list[list[Plot]]:
    """Write index.html, comparison.md, comparison.csv and plots/ into `out`, each file whole or not at all.

    Plots that an earlier report left there and this one does not have are removed; nothing else is touched.

    Returns:
        The plots of each section.

    Raises:
        UserError: `out` cannot be written to.
    """
    drawn = draw(comparison)
    present = [plot for each in drawn for plot in each if plot.png]
    files = {f"{p.name}.png": p.png for p in present} | {f"{p.name}.svg": p.svg for p in present}
    try:
        for name, data in files.items():
            shared_files.write_atomic(out / "plots" / name, data)
        shared_files.write_atomic(out / "index.html", html_page(comparison, drawn).encode())
        shared_files.write_atomic(out / "comparison.csv", tables.csv(comparison.summary).encode())
        shared_files.write_atomic(out / "comparison.md", markdown(comparison, drawn).encode())
        for stale in (out / "plots").glob("*"):
            if OWN_PLOT.fullmatch(stale.name) and stale.name not in files:
                stale.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); give another folder.") from error
    return drawn


def draw(comparison: Comparison) -> list[list[Plot]]:
    """The plots of each section; none of runs that are not proved to compute the specified model."""
    return [plots.draw(section) if section.comparable else [] for section in comparison.sections]


def html_page(comparison: Comparison, drawn: Sequence[list[Plot]]) -> str:
    """The whole report as one HTML page; `drawn` has the plots of each section."""
    parts = []
    for section, drawings in zip(comparison.sections, drawn, strict=True):
        widest, among = _widest(comparison.partings[section.title])
        parts.append(
            html.Part(
                section,
                [text for text in (section.reason, *shared_sentences(section)) if text],
                comparison.headline(section),
                comparison.subtables(section),
                comparison.phases(section),
                drawings,
                [parting_sentence(parting) for parting in widest],
                among,
            )
        )
    files = sum(len(run.results) for run in comparison.runs)
    return html.page(comparison, files, parts, [_without_folder(problem) for problem in comparison.problems])


def markdown(comparison: Comparison, drawn: Sequence[list[Plot]]) -> str:
    """The whole report as GitHub-flavoured Markdown; `drawn` has the plots of each section."""
    parts = [f"# {escaped(comparison.title)}", _runs(comparison.runs)]
    for section, drawings in zip(comparison.sections, drawn, strict=True):
        parts += [f"## {escaped(section.title)}"]
        parts += [escaped(text) for text in (section.reason, *shared_sentences(section)) if text]
        parts += [tables.markdown(comparison.headline(section))]
        for table in (*comparison.subtables(section), comparison.details(section)):
            parts += [f"### {escaped(table.title)}", tables.markdown(table)]
        parts += [_plot(plot) for plot in drawings]
        parts += _loss_traces(comparison.partings[section.title])
    parts += [_definitions()]
    if comparison.problems:
        parts += [
            "## Files that are not compared",
            "\n".join(f"- {escaped(_without_folder(p))}" for p in comparison.problems),
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _without_folder(problem: Problem) -> str:
    """A report is made to be shown around: it names files, not where they lie."""
    return str(Problem(Path(problem.file).name, problem.pointer, problem.message))


def _runs(runs: Sequence[Run]) -> str:
    lines = ["| | platform | engine | framework | device | precision | profile | data | conformance | commit | file |"]
    lines += ["|" + " --- |" * 11]
    for run in runs:
        r = run.identity
        hardware = ", ".join(filter(None, (run.hardware.short, run.ranks.words)))
        commit = (r["git_commit"] or "unknown")[:10] + (" (changed)" if r["git_clean"] is False else "")
        first = (r["platform"], r["engine"], r["framework"], hardware, r["precision"], r["profile"])
        cells = (*first, r["data"], r["conformance"], commit, r["file"])
        lines.append(f"| **{r['run']}** | " + " | ".join(map(escaped, cells)) + " |")
    return "\n".join(lines)


def _plot(plot: Plot) -> str:
    image = f"![{escaped(plot.alt)}](plots/{plot.name}.png)" if plot.png else ""
    notes = "\n".join(f"- {escaped(note)}" for note in plot.notes)
    return "\n\n".join(part for part in (f"### {plot.title}", image, plot.missing, notes) if part)


def _widest(found: Sequence[Parting]) -> tuple[list[Parting], str]:
    """The pairs to list, and what to say where these are not all."""
    among = f" The {MAX_PAIRS} furthest apart of {len(found):,} pairs." if len(found) > MAX_PAIRS else ""
    return sorted(found, key=_width, reverse=True)[:MAX_PAIRS], among


def _loss_traces(found: Sequence[Parting]) -> list[str]:
    if not found:
        return []
    widest, among = _widest(found)
    lines = "\n".join(f"- {escaped(parting_sentence(parting))}" for parting in widest)
    return [
        "### How far the losses part",
        "Runs of the same data, initial values, batch and seed: largest \\|a - b\\| / max(a, b)." + among,
        lines,
    ]


def _definitions() -> str:
    lines = [
        f"- **{metric.title}**{f' ({metric.unit})' if metric.unit else ''}: {metric.definition}." for metric in METRICS
    ]
    lines.append(f"- **Scaling efficiency**: {scaling.DEFINITION}.")
    lines.append(f"- **Times as fast**: {ratios.DEFINITION}")
    return "## How each figure is found\n\n" + "\n".join(lines)
