"""What is said of the comparison in sentences: the answer on top, what else differs, and findings of single runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from aggregate import __version__
from aggregate.analysis import confounders, series
from aggregate.analysis.answer import MAX_RIVALS, WINDOW_ALONE, Answer, Key, Ranking, Standing
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.growth import MemoryGrowth, Slowdown, memory_growth, slowdown
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.ratios import Ratio
from aggregate.analysis.reading import Problem
from aggregate.analysis.sections import Section, same_framework, same_hardware
from aggregate.analysis.standard import is_standard
from aggregate.render import words
from aggregate.render.tables import number

MAX_PAIRS = 66
"""Pairs of loss traces listed: all of twelve runs."""
MAX_UNKNOWN = 4
"""Reasons that the sentence of what is not known gives: those that leave most open."""
WHAT: dict[Key, str] = {
    "training": "training speed", "latency": "latency", "inference": "inference speed", "target": "time",
    "energy": "energy", "cost": "cost", "memory": "memory", "max_batch": "the largest batch that trains",
}  # fmt: skip
"""What a question asks, in words."""
OF_A_TRAINING: tuple[Key, ...] = ("target", "energy", "cost")
"""Questions that one full training answers."""


def top(comparison: Comparison) -> list[str]:
    """What stands at the top of every form of the report: the answer of the first section, then a sentence of each other."""
    (first, *others) = headline(comparison)
    return [*first[1], *filter(None, (_in_brief(comparison, section) for section, _ in others))]


def headline(comparison: Comparison) -> list[tuple[Section, list[str]]]:
    """The answers of all sections: the standard workload first, then what most platforms, and most of the questions, have."""
    each = [(section, of_section(comparison, section)) for section in comparison.sections]

    def weight(pair: tuple[Section, list[str]]) -> tuple[bool, bool, int, int, int]:
        section, answers = pair[0], comparison.answers[pair[0].title]
        standings = sum(len(ranking.standings) for answer in answers.values() for ranking in answer.rankings)
        platforms = len({run.content.platform for run in section.runs})
        answered = sum(bool(answer.rankings) for answer in answers.values())
        return section.comparable, is_standard(section.runs[0].result.spec), platforms, answered, standings

    return sorted(each, key=weight, reverse=True)


def of_section(comparison: Comparison, section: Section) -> list[str]:
    """The answer of a section: a sentence for each of the benchmark's questions, and one of what is not known."""
    if not (answers := comparison.answers[section.title]):
        return []
    names = words.names(section.runs)
    asked = [key for key in SPEED if answers[key].rankings and not (key == "training" and _all_in_full(answers))]
    told = [_speed(answers[key], names) for key in asked]
    told += _training_in_full(answers, names, section)
    told += _memory(answers, names)
    return [*told, *_not_known(answers, len(section.runs))]


def _in_brief(comparison: Comparison, section: Section) -> str:
    """A section that is not the first, in one sentence: who trains and who answers fastest."""
    answers, names = comparison.answers[section.title], words.names(section.runs)
    parts, said = [], ""
    for key, does in IN_BRIEF.items():
        if answers and (rankings := answers[key].rankings):
            who = names[rankings[0].best.run.letter]
            factors = _factors(rankings[0], names, 1) if key == "training" else ""
            parts.append(f"{'it' if who == said else who} {does} {_value(rankings[0].best)}{factors}")
            said = who
    return f"{section.words}: {'; '.join(parts)}." if parts else ""


IN_BRIEF: dict[Key, str] = {"training": "trains", "latency": "answers one image in"}
"""Questions that are answered of every section, and the verb of each."""
MANY_KINDS = 3
"""Of so many kinds of memory only the best of each is told: the table has the others."""
SPEED: tuple[Key, ...] = ("full", "training", "latency", "inference")
START: dict[Key, str] = {
    "full": "a full training", "training": "training", "latency": "one image at a time",
    "inference": "many images at a time",
}  # fmt: skip
"""How the sentence of a question of speed begins."""


def _speed(answer: Answer, names: Mapping[str, str]) -> str:
    """Who is fastest, and by how much."""
    ranking = answer.rankings[0]
    best, start = ranking.best, START[answer.question.key].capitalize()
    alone = len(ranking.standings) == 1
    comes = "" if alone else " is fastest," if ranking.best.factor and _proved(ranking.best.factor) else " comes first,"
    how = {
        "full_throughput": " on average",
        "training_throughput": f" in a steady window at batch {best.run.result.spec.training.batch_size:,}",
        "inference_reference": f" at batch {best.run.result.spec.training.batch_size:,}",
    }.get(best.metric, "")
    return f"{start}: {names[best.run.letter]}{comes or ','} {_value(best)}{how}{_factors(ranking, names)}."


def _all_in_full(answers: Mapping[Key, Answer]) -> bool:
    """Whether all that trained for a window trained in full as well: then the window is the table's alone."""
    full, window = (sum(len(ranking.standings) for ranking in answers[key].rankings) for key in ("full", "training"))
    return full >= window


def training_speed(comparison: Comparison, section: Section) -> tuple[Ranking, str] | None:
    """How fast the runs of a section train, and that in a sentence: in full where all did; None where none was timed."""
    answers = comparison.answers[section.title]
    if not answers or not answers["training"].rankings:
        return None
    answer = answers["full" if _all_in_full(answers) else "training"]
    return answer.rankings[0], _speed(answer, words.names(section.runs))


def _proved(factor: Ratio) -> bool:
    """Whether the runner-up is slower by more than chance."""
    return factor.verdict == "faster"


def _value(standing: Standing) -> str:
    """A value with its unit: "6,539 images/s"."""
    return words.measured(standing.value, standing.unit)


def _factors(ranking: Ranking, names: Mapping[str, str], most: int = MAX_RIVALS) -> str:
    """How the best stands to the others that an answer names; empty where it stands alone."""
    rivals = ranking.rivals[:most]
    if not rivals:
        return ""
    single = all(standing.repeats == 1 for standing in (ranking.best, *rivals))
    parts = []
    for rival in rivals:
        factor, remarks = rival.factor, [_value(rival).removesuffix(f" {ranking.best.unit}")]
        if factor is None or math.isnan(factor.ratio):
            parts.append(f"against {names[rival.run.letter]} ({remarks[0]})")
            continue
        if not single and factor.reason.startswith("one process"):
            remarks.append("one process" if rival.repeats == 1 else "against one process")
        parts.append(f"{words.times(factor)} {names[rival.run.letter]} ({', '.join(remarks)})")
    return f", {words.listed(parts)}" + ", one process each" * single


def _training_in_full(answers: Mapping[Key, Answer], names: Mapping[str, str], section: Section) -> list[str]:
    """What a training to the target took in time, energy and money, machine by machine."""
    if not answers["target"].rankings:
        return []
    ranking = answers["target"].rankings[0]
    target = f"{section.runs[0].result.spec.training.target_top1:.0%}".replace("%", " %")
    parts, told = [], set[str]()
    for standing in (ranking.best, *ranking.rivals):
        took = [_value(standing)]
        if standing is not ranking.best and standing.factor and math.isfinite(standing.factor.ratio):
            took[0] += f" ({words.rounded(standing.factor.ratio)} times as long)"
        for key in ("energy", "cost"):
            for each in answers[key].rankings:
                found = next((s for s in each.standings if s.run is standing.run), None)
                if found:
                    took.append(_value(found) + _once(words.covers(each.kind), told))
        parts.append(f"{names[standing.run.letter]} {', '.join(took)}")
    alone = {standing.repeats for standing in (ranking.best, *ranking.rivals)} == {1}
    return [f"Training to {target} top-1: {'; '.join(parts)}{'; one training each' * (alone and len(parts) > 1)}."]


def _once(text: str, told: set[str]) -> str:
    """In brackets where it is told for the first time; else nothing."""
    if not text or text in told:
        return ""
    told.add(text)
    return f" ({text})"


def _memory(answers: Mapping[Key, Answer], names: Mapping[str, str]) -> list[str]:
    """What a training takes of the machine, and the largest batch that trains."""
    kinds = {ranking.kind for ranking in answers["memory"].rankings}
    told = [r for r in answers["memory"].rankings if r.kind.removesuffix(WINDOW_ALONE) not in kinds - {r.kind}]
    most = MAX_RIVALS if len(told) < MANY_KINDS else 0
    parts = [f"{_each(ranking, names, most)} ({ranking.kind})" for ranking in told]
    texts = [f"Memory of a training: {'; '.join(parts)}."] if parts else []
    if largest := answers["max_batch"].rankings:
        texts.append(f"Largest batch that trains: {_each(largest[0], names, 1)}.")
    return texts


def _each(ranking: Ranking, names: Mapping[str, str], most: int) -> str:
    """The best and the others that an answer names, with their values alone."""
    several = (ranking.best, *ranking.rivals[:most])
    return ", ".join(f"{names[standing.run.letter]} {_value(standing)}" for standing in several)


def _not_known(answers: Mapping[Key, Answer], runs: int) -> list[str]:
    """One sentence of what is not known, by whom it concerns and why."""
    by_reason: dict[tuple[tuple[str, ...], str], list[Key]] = {}
    for key, answer in answers.items():
        if key in ("full", "max_batch"):
            continue  # the target says as much of who trained in full; the largest batch is none of the six
        reasons: dict[str, list[str]] = {}
        for run, reason in answer.unknown:
            reasons.setdefault(words.why(reason), []).append(run.letter)
        for reason, letters in reasons.items():
            by_reason.setdefault((tuple(letters), reason), []).append(key)
    parts = []
    weightiest = sorted(by_reason, key=lambda known: -len(known[0]) * len(by_reason[known]))[:MAX_UNKNOWN]
    for (whom, reason), keys in by_reason.items():
        if (whom, reason) not in weightiest:
            continue
        whose = "" if len(whom) == runs else f" of {words.whom(whom, runs)}"
        what = words.listed([WHAT[key] for key in keys])
        of = " of a training to the target" * (set(keys) <= set(OF_A_TRAINING))
        parts.append(
            f"{what}{of}{whose} ({reason})" if not whose or not of else f"{what}{of} for {whose[4:]} ({reason})"
        )
    if len(by_reason) > MAX_UNKNOWN:
        parts.append("the tables have the rest")
    return [f"Not known: {'; '.join(parts)}."] if parts else []


def what_differs(section: Section) -> str:
    """The confounders of a section in one paragraph, and what of the difference is the framework's."""
    parts = []
    for each in confounders.confounders(section.runs):
        values = [f"{value} ({', '.join(letters)})" for value, letters in each.values.items()]
        parts.append(f"{each.aspect}: {', '.join(values)}")
    texts = [f"Not only the machines differ. {_capital('; '.join(parts))}."] if parts else []
    on_same = confounders.on_same_hardware(section.runs)
    for pair in on_same:
        faster, slower, alone = words.framework(pair.faster), words.framework(pair.slower), not pair.ratio.verdict
        texts.append(f"On the same {pair.hardware}, {faster} trains {words.times(pair.ratio)} {slower}"
                     f"{' (one process on a side)' * alone}: so much is the framework's.")  # fmt: skip
    if len(section.runs) > 1 and not on_same:
        texts.append(
            "No two frameworks ran on the same device, so what is the framework's and what the device's is not known."
        )
    return " ".join(texts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def footer(comparison: Comparison) -> str:
    """When the report was made, and by what."""
    return f"Made by deit-bench aggregate {__version__} on {comparison.made:%Y-%m-%d at %H:%M} UTC."


def earlier(comparison: Comparison) -> list[str]:
    """Which results stepped back, and for which newer one."""
    return [
        f"Earlier result, not compared: {each.result.file}, measured again since in {each.newest.file}."
        for each in comparison.earlier
    ]


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
