"""What the owner of a machine reads after a run: the six metrics, how they stand to others, and what was not measured."""

import math
import re
import textwrap
from collections.abc import Iterator

from aggregate.analysis.answer import Answer, Key, Standing
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.energy import power_reason
from aggregate.analysis.merging import Run
from aggregate.render import words

LABELS: dict[Key, str] = {
    "full": "Full training", "training": "Training", "latency": "One image", "inference": "Many images", "memory": "Memory",
    "target": "To the target", "energy": "  its energy", "cost": "  its cost",
}  # fmt: skip
"""The six metrics; the last three lines are one training's time, energy and money."""
COMMAND = re.compile(r"`([^`]+)`")
ORDINALS = {1: "first", 2: "second", 3: "third"}
MAX_NOTES = 3
MAX_NOTE = 160
"""Characters of a note; the report has it whole."""
MAX_LACKS = 3


def lines(comparison: Comparison, run: Run) -> list[str]:
    """A sentence or a line of a table each, at most some twenty."""
    (section,) = (one for one in comparison.sections if run in one.runs)
    answers = comparison.answers[section.title]
    if not answers:
        return [f"{words.name(run)}: {section.reason}"]
    names = words.names(section.runs)
    told = [f"This machine: {words.name(run)}, {run.content.precision}, {words.listed(run.profiles)}; "
            f"{len(section.runs) - 1} other results of this workload and precision."]  # fmt: skip
    told += [_metric(label, answers[key], run, names) for key, label in LABELS.items() if answers[key].standing(run)]
    told += list(_lacks(answers, run))[:MAX_LACKS]
    told += [f"To know: {textwrap.shorten(note, MAX_NOTE, placeholder=' …')}." for note in run.notes[:MAX_NOTES]]
    if len(run.notes) > MAX_NOTES:
        told.append(f"{len(run.notes) - MAX_NOTES} more notes are in the report.")
    return told


def _metric(label: str, answer: Answer, run: Run, names: dict[str, str]) -> str:
    """A value, its place, and the best."""
    ranking = next(ranking for ranking in answer.rankings if any(s.run is run for s in ranking.standings))
    own = next(standing for standing in ranking.standings if standing.run is run)
    place, count = ranking.standings.index(own) + 1, len(ranking.standings)
    value = words.measured(own.value, own.unit)
    kind = f" ({words.covers(ranking.kind)})" if ranking.kind else ""
    text = f"{label:13} {value}{kind}"
    if count == 1:
        return f"{text}: no other result of this kind"
    where = f"{ORDINALS.get(place, f'{place}th')} of {count}"
    rival = ranking.standings[1] if place == 1 else ranking.best
    return f"{text}: {where}; {_rival(own, rival, answer, names, first=place == 1)}"


def _rival(own: Standing, rival: Standing, answer: Answer, names: dict[str, str], *, first: bool) -> str:
    """How this machine stands to the best, or as the best to the next."""
    who, value = names[rival.run.letter], words.measured(rival.value, rival.unit)
    factor = rival.factor if first else own.factor
    timed = ("full", "training", "latency", "inference", "target")
    if answer.question.key not in timed or factor is None or math.isnan(factor.ratio):
        return f"{'next' if first else 'best'} is {who}, {value}"
    alone = ", one process on a side" if not factor.verdict else ""
    if first:
        return f"{words.times(factor)} {who} ({value}{alone})"
    return f"{who} is {words.times(factor)} this ({value}{alone})"


def _lacks(answers: dict[Key, Answer], run: Run) -> Iterator[str]:
    """What was not measured, and the command that helps."""
    reasons: dict[str, list[str]] = {}
    for key, label in LABELS.items():
        if key == "full":
            continue  # the target says as much
        for of_run, reason in answers[key].unknown:
            if of_run is run:
                reasons.setdefault(reason, []).append(label.strip().lower())
    if power := power_reason(run.content):
        reasons.setdefault(power, []).append("power")
    for reason, what in reasons.items():
        yield f"Not measured: {words.listed(what)}: {words.why(reason)}. {_help(reason, run)}".strip()


def _help(reason: str, run: Run) -> str:
    """The one command that helps, where the reason does not say it."""
    if COMMAND.search(reason):
        return ""
    if reason.endswith("phase was not run"):
        return f"`make bench PROFILE=full PRECISION={run.content.precision}` measures it."
    return "`make doctor` says what helps."
