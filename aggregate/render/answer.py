"""What is said of the comparison in sentences: the answer on top, what else differs, and findings of single runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aggregate.analysis import confounders, series
from aggregate.analysis.answer import Answer, Key, Ranking, Standing
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.growth import MemoryGrowth, Slowdown, memory_growth, slowdown
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.reading import Problem
from aggregate.analysis.registry import METRIC
from aggregate.analysis.sections import Section, same_framework, same_hardware
from aggregate.analysis.standard import is_standard
from aggregate.render import words
from aggregate.render.tables import number, shown

MAX_PAIRS = 66
"""Pairs of loss traces listed: all of twelve runs."""
WHAT: dict[Key, str] = {
    "training": "training speed", "latency": "latency", "inference": "inference speed", "target": "time to the target",
    "energy": "energy", "cost": "cost", "memory": "memory", "max_batch": "the largest batch",
}  # fmt: skip
"""What a question asks, in words."""
MISSING_PHASE = {
    "the convergence phase was not run": "no full training was run",
    "the max_batch phase was not run": "it was not searched",
}
"""Reasons of the tables, in the words of the answer."""
MAX_KINDS = 3
"""Kinds of memory or energy figures that the answer tells; the table has all."""


def of_section(comparison: Comparison, section: Section) -> list[str]:
    """The answer of a section: a sentence for each of the benchmark's questions, and one of what is not known."""
    answers = comparison.answers[section.title]
    if not answers:
        return []
    names = words.names(section.runs)
    target = f"{section.runs[0].result.spec.training.target_top1:.0%}".replace("%", " %")
    told = [_TELL[key](answer, names, target) for key, answer in answers.items() if answer.rankings]
    return [*filter(None, told), *_not_known(answers, target, len(section.runs))]


def headline(comparison: Comparison) -> list[tuple[Section, list[str]]]:
    """The answers of all sections, that of most platforms and then of most figures first."""
    each = [(section, of_section(comparison, section)) for section in comparison.sections]

    def weight(pair: tuple[Section, list[str]]) -> tuple[bool, int, int, int]:
        section, answers = pair[0], comparison.answers[pair[0].title]
        standings = sum(len(ranking.standings) for answer in answers.values() for ranking in answer.rankings)
        platforms = len({run.content.platform for run in section.runs})
        return (
            is_standard(section.fingerprint),
            platforms,
            sum(bool(answer.rankings) for answer in answers.values()),
            standings,
        )

    return sorted(each, key=weight, reverse=True)


def _value(standing: Standing) -> str:
    """A value with its unit: "6,532 images/s"."""
    return f"{shown(standing.value, METRIC[standing.metric])} {standing.unit}".strip()


def _factors(ranking: Ranking, names: Mapping[str, str], better: str = "faster", as_good: str = "as fast") -> str:
    """How the best stands to the others that an answer names; empty where it stands alone."""
    parts = []
    for rival in ranking.rivals:
        factor, remarks = rival.factor, [_value(rival)]
        if factor is None or math.isnan(factor.ratio):
            parts.append(f"against {names[rival.run.letter]} ({remarks[0]})")
            continue
        if factor.verdict:
            remarks.append(words.interval(factor))
        elif factor.reason.startswith("one process"):
            remarks.append("one process each" if max(ranking.best.repeats, rival.repeats) == 1 else "one process there"
                           if rival.repeats == 1 else "one process here")  # fmt: skip
        how = words.times(factor, better=better, as_good=as_good)
        parts.append(f"{how} {names[rival.run.letter]} ({'; '.join(filter(None, remarks))})")
    return f": {words.listed(parts)}" if parts else ""


def _first(ranking: Ranking) -> str:
    """What is said of the best: that it is fastest only where the runner-up is proved slower."""
    factor = ranking.best.factor
    return "is fastest" if factor is None or factor.verdict == "faster" else "comes first"


def _training(answer: Answer, names: Mapping[str, str], target: str) -> str:
    ranking = answer.rankings[0]
    best = ranking.best
    over = "over a full training" if best.metric == "full_throughput" else "in a steady window"
    batch = best.run.result.spec.training.batch_size
    return (f"Training at batch {batch:,}: {names[best.run.letter]} {_first(ranking)}, {_value(best)} {over}"
            f"{_factors(ranking, names)}.")  # fmt: skip


def _latency(answer: Answer, names: Mapping[str, str], target: str) -> str:
    ranking = answer.rankings[0]
    best = ranking.best
    return f"One image: {names[best.run.letter]} {_first(ranking)}, {_value(best)}{_factors(ranking, names)}."


def _inference(answer: Answer, names: Mapping[str, str], target: str) -> str:
    ranking = answer.rankings[0]
    best = ranking.best
    limit = "" if answer.limit is None else f", the largest that all were asked to try being {answer.limit:,}"
    return (f"Many images: {names[best.run.letter]} {_first(ranking)}, {_value(best)} {best.notes[0]}{limit}"
            f"{_factors(ranking, names)}.")  # fmt: skip


def _target(answer: Answer, names: Mapping[str, str], target: str) -> str:
    ranking = answer.rankings[0]
    best = ranking.best
    return f"To {target} top-1: {names[best.run.letter]} {_first(ranking)}, {_value(best)}{_factors(ranking, names)}."


def _energy(answer: Answer, names: Mapping[str, str], target: str) -> str:
    parts = [
        f"{_each(ranking, names)} ({ranking.kind.partition(': ')[2] or ranking.kind})"
        for ranking in answer.rankings[:MAX_KINDS]
    ]
    return f"Energy of that training: {'; '.join(parts)}."


def _cost(answer: Answer, names: Mapping[str, str], target: str) -> str:
    return f"Cost of it: {'; '.join(f'{_each(r, names)} ({r.kind})' for r in answer.rankings[:MAX_KINDS])}."


def _memory(answer: Answer, names: Mapping[str, str], target: str) -> str:
    parts = [f"{_each(ranking, names)} ({ranking.kind})" for ranking in answer.rankings[:MAX_KINDS]]
    return f"Memory of a training: {'; '.join(parts)}."


def _max_batch(answer: Answer, names: Mapping[str, str], target: str) -> str:
    return f"Largest batch that trains: {_each(answer.rankings[0], names)}."


def _each(ranking: Ranking, names: Mapping[str, str]) -> str:
    """The best and the others that an answer names, with their values alone."""
    shown_ones = (ranking.best, *ranking.rivals)
    return ", ".join(f"{names[standing.run.letter]} {_value(standing)}" for standing in shown_ones)


_TELL: dict[Key, Callable[[Answer, Mapping[str, str], str], str]] = {
    "training": _training, "latency": _latency, "inference": _inference, "target": _target, "energy": _energy,
    "cost": _cost, "memory": _memory, "max_batch": _max_batch,
}  # fmt: skip


def _not_known(answers: Mapping[Key, Answer], target: str, runs: int) -> list[str]:
    """One sentence of what is not known, by whom it concerns and why."""
    by_reason: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for key, answer in answers.items():
        reasons: dict[str, list[str]] = {}
        for run, reason in answer.unknown:
            reasons.setdefault(MISSING_PHASE.get(reason, reason), []).append(run.letter)
        for reason, letters in reasons.items():
            by_reason.setdefault((tuple(letters), reason), []).append(WHAT[key])
    parts = []
    for (whom, reason), what in by_reason.items():
        whose = "" if len(whom) == runs else f" of {words.listed(whom)}"
        parts.append(f"{words.listed(what)}{whose} ({reason})")
    return [f"Not known: {'; '.join(parts)}."] if parts else []


def what_differs(section: Section) -> str:
    """The confounders of a section in one paragraph, and what of the difference is the framework's."""
    found = confounders.confounders(section.runs)
    parts = []
    for each in found:
        values = [f"{value} ({', '.join(letters)})" for value, letters in each.values.items()]
        parts.append(f"{each.aspect}: {', '.join(values)}")
    texts = [f"Besides the machines these differ: {'; '.join(parts)}."] if parts else []
    for pair in confounders.on_same_hardware(section.runs):
        factor = words.times(pair.ratio)
        texts.append(f"On the same {pair.hardware}, {words.framework(pair.faster)} trains {factor} "
                     f"{words.framework(pair.slower)}: that much is the framework's.")  # fmt: skip
    return " ".join(texts)


def sentences(section: Section, divergences: Sequence[Divergence]) -> list[str]:
    """What the terminal says below the table of a section: shared hardware, and the widest loss divergence."""
    texts = shared(section)
    for mixed, which in ((False, "Losses of one precision"), (True, "Losses across precisions")):
        of_kind = [each for each in divergences if (len(each.precisions) > 1) is mixed]
        if of_kind:
            furthest = max(of_kind, key=lambda each: each.width)
            among = f", the furthest apart of {len(of_kind):,} pairs" if len(of_kind) > 1 else ""
            texts.append(f"{which}{among}: {divergence(furthest)}.")
    return texts


def shared(section: Section) -> list[str]:
    """Said where all runs of a section share their hardware or their framework."""
    return [
        f"All of these ran on the same {what}: {groups[0][0]}. What differs is the {other}."
        for what, other, groups in (
            ("hardware", "software", same_hardware(section.runs)),
            ("framework", "hardware", same_framework(section.runs)),
        )
        if len(groups) == 1 and len(groups[0][1]) == len(section.runs)
    ]


def divergence(pair: Divergence) -> str:
    """How far two loss traces are apart."""
    who = f"{pair.first.letter} and {pair.second.letter} ({' against '.join(pair.precisions)})"
    over = f"{pair.steps:,} common steps of {pair.seeds:,} seed{'s' * (pair.seeds != 1)}"
    unequal = f"; in {pair.unequal:,} steps only one of the two is finite" if pair.unequal else ""
    if math.isnan(pair.relative):
        return f"{who}: no common step with a finite loss{unequal}"
    apart = f"at most {pair.relative:.2g} apart, relative, over {over}"
    return f"{who}: {apart} (seed {pair.seed}, step {pair.step}){unequal}"


def widest(divergences: Sequence[Divergence]) -> tuple[list[Divergence], str]:
    """The pairs to list, and what to say where these are not all."""
    among = f" The {MAX_PAIRS} furthest apart of {len(divergences):,} pairs." if len(divergences) > MAX_PAIRS else ""
    return sorted(divergences, key=lambda pair: pair.width, reverse=True)[:MAX_PAIRS], among


def growth(run: Run) -> list[str]:
    """How memory and time grow with the batch, and from where on they grow faster than it."""
    memory = memory_growth(series.by_batch(run, "batch_memory"))
    slower = (
        ("training", slowdown(series.by_batch(run, "batch_throughput"))),
        ("inference", slowdown(series.by_batch(run, "inference_throughput"))),
    )
    texts = [of_memory(memory)] if memory else []
    return texts + [of_slowdown(what, where) for what, where in slower if where]


def of_memory(growth: MemoryGrowth) -> str:
    """Growth of memory with the batch."""
    each = f"the peak memory grows by {number(growth.mib_per_image, 3)} MiB an image"
    steeper = f", and more steeply from batch {growth.steeper_from:,} on" if growth.steeper_from is not None else ""
    return f"from batch {growth.first:,} to {growth.last:,} {each}{steeper}"


def of_slowdown(what: str, slowdown: Slowdown) -> str:
    """Where a larger batch makes an image slower."""
    took = f"an image takes {slowdown.times:.2f} times as long as at batch {slowdown.fastest:,}"
    return f"{what} time grows faster than the batch at {slowdown.batch:,}: {took}"


def without_folder(problem: Problem) -> str:
    """A report is made to be shown around: it names files, not where they lie."""
    return str(Problem(Path(problem.file).name, problem.pointer, problem.message))
