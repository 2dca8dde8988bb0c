"""Energy by the log of a plug, in place of what the meters of the machine said: at the end of a run, or later."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.machine.energy import wall
from shared_spec.machine.energy.wall import PlugLog
from shared_spec.results import format
from shared_spec.results.quantities import Energy
from shared_spec.results.upgrade import upgrade

Facts = dict[str, Any]


def at_the_end(outcomes: Facts, power_watts: str | None) -> tuple[Facts, list[str]]:
    """The outcomes of a run that has ended, with the energy that a plug's log tells, and what there is to warn of.

    Args:
        outcomes: by title.
        power_watts: what --power-watts says; without a log nothing is changed.
    """
    path = None if power_watts is None else wall.parse(power_watts).log
    if path is None:
        return outcomes, []
    try:
        log = wall.read_log(path)
    except UserError as error:
        return outcomes, [f"{error} No energy is known; `power` puts it in when the log can be read."]
    return {title: metered(outcome, log) for title, outcome in outcomes.items()}, []


def metered(outcome: Facts, log: PlugLog) -> Facts:
    """An outcome, as plain JSON, with the energy that a log tells of its windows; any other is returned as it is."""
    measured = outcome["measurements"]
    if measured is None or "energy" not in measured:
        return outcome
    return {**outcome, "measurements": {**measured, **(_full if "evaluations" in measured else _window)(measured, log)}}


WINDOWS = ("idle_before", "idle", "energy")
"""Energies of a phase."""


def _window(measured: Facts, log: PlugLog) -> Facts:
    """Energy of a throughput window, and of the idle seconds before it."""
    return {name: _metered(measured[name], log) for name in WINDOWS if measured.get(name) is not None}


def _metered(energy: Facts, log: PlugLog) -> Facts:
    return {**energy, **_of(log, energy.get("windows"))}


def _of(log: PlugLog, windows: Any) -> Facts:
    if windows is None:
        reason = "nobody noted the time of day of this window, which the plug's log would be matched with"
        energy = Energy(joules=None, reason=reason, source=wall.SOURCE, scope=wall.LOG_SCOPE, samples=0)
    else:
        energy = log.energy([(start, end) for start, end in windows])
    return energy.to_dict()


def _full(measured: Facts, log: PlugLog) -> Facts:
    """Energy of a full training: of each evaluation what lies before its end, of all of it what the last one says."""
    windows, evaluations = measured["energy"].get("windows"), []
    whole = _metered(measured["energy"], log)
    for evaluation in measured["evaluations"]:
        until, end = None, evaluation.get("ended")
        if windows is not None and end is not None:
            until = [(start, min(stop, end)) for start, stop in windows if start < end]
        whole = _metered({**measured["energy"], "windows": until}, log)
        evaluations.append({**evaluation, "joules": whole["joules"]})
    return {"energy": {**whole, "windows": windows}, "evaluations": evaluations}


def put_in(result: Path, power: Path) -> str:
    """Put the energy that a plug's log tells into a result file; the file as it was stays beside it as NAME.bak.

    Returns:
        What was done, in a sentence.

    Raises:
        UserError: one of the files cannot be read, the result is not valid, or the log covers none of its windows;
            nothing is written then.
    """
    log = wall.read_log(power)
    content = files.read(result)
    try:
        before = format.parse(upgrade(content) if isinstance(content, dict) else content).to_dict()
        phases = [metered(outcome, log) for outcome in before["phases"]]
        after = format.parse({**before, "phases": phases})
    except schema.Invalid as invalid:
        raise UserError(f"{invalid.of(str(result))}") from None
    energies = list(_energies(phases))
    covered = [energy for energy in energies if energy["joules"] is not None]
    if not covered:
        why = "; ".join(dict.fromkeys(energy["reason"] for energy in energies)) or "it has no window with energy"
        raise UserError(f"{power}: covers no window of {result}: {why}.")
    kept = result.with_name(f"{result.name}.bak")
    if not kept.exists():
        shutil.copy2(result, kept)
    files.write(result, after.to_dict())
    return (
        f"{result}: {len(covered)} of {len(energies)} windows are by the plug's log now; as it was, it is {kept.name}."
    )


def _energies(phases: Iterable[Facts]) -> Iterable[Facts]:
    for outcome in phases:
        measured = outcome["measurements"] or {}
        yield from (measured[name] for name in WINDOWS if measured.get(name) is not None)
