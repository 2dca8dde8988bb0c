"""The run that others are measured against: the fastest, or the one that the user names."""

from collections.abc import Sequence
from pathlib import Path

from aggregate.analysis import answer
from aggregate.analysis.merging import Run
from aggregate.analysis.sections import Section
from shared_spec.errors import UserError

MAX_CHOICES = 12


def baseline_of(section: Section, wanted: Run | None) -> Run | None:
    """The run of a section that the others are measured against.

    Args:
        section: where it is looked for.
        wanted: the user's choice, of any section; its counterpart here stands for it: the same platform and engine on the
            same devices. None for the run that trains fastest.

    Returns:
        None where the user's choice has no counterpart here.
    """
    if wanted is None:
        return answer.fastest(section.runs)
    counterparts = (run for run in section.runs if run is wanted or _thing(run) == _thing(wanted))
    return next(counterparts, None)


def named(wanted: str, runs: Sequence[Run]) -> Run | None:
    """The run that the user calls so, by letter, file, platform, engine, "platform/engine", or (part of) its device.

    What is called so in whole goes before what only has it in its name. Runs of several sections that are the same thing
    in another precision are one choice.

    Raises:
        UserError: none is called so, or several are; the text has the choices.
    """
    text = wanted.casefold().strip()
    if not text:
        return None
    exact = [run for run in runs if {text, Path(text).name} & _names(run)]
    found = exact or [run for run in runs if any(text in name for name in _names(run) if len(name) > 2)]
    if len({_thing(run) for run in found}) == 1:
        return found[0]
    which = "fits several" if found else "fits none"
    choices = found or runs
    known = "; ".join(f"{run.letter} {run.content.platform}/{run.content.engine} on {run.hardware.short}, "
                      f"{run.content.precision}" for run in choices[:MAX_CHOICES])  # fmt: skip
    more = f"; and {len(choices) - MAX_CHOICES} more" if len(choices) > MAX_CHOICES else ""
    raise UserError(f"--baseline {wanted} {which} of the results; give the letter of one: {known}{more}.")


def _names(run: Run) -> set[str]:
    c = run.content
    names = {run.letter, c.platform, c.engine, f"{c.platform}/{c.engine}", run.hardware.short, run.hardware.model}
    return {name.casefold() for name in names | {result.file for result in run.results}}


def _thing(run: Run) -> tuple[str, ...]:
    return run.content.platform, run.content.engine, run.hardware.short.casefold(), run.ranks.words
