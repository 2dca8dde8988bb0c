"""Which runs may stand in one table, and which of them share their hardware or their framework."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aggregate.analysis.merging import Run
from aggregate.analysis.standard import differences, is_standard


@dataclass(frozen=True)
class Section:
    """Runs that one table may hold.

    Attributes:
        title: what was measured.
        reason: why these runs are apart from the standard ones; empty for those.
        runs: in the order of their letters.
        comparable: False where a run did not prove to compute the specified model.
        words: what tells it from other sections, in short: "fp32".
        slug: "" for the standard workload in fp32, else what its files are told apart by: "-0123456789ab-bf16".
    """

    title: str
    reason: str
    runs: tuple[Run, ...]
    comparable: bool
    slug: str
    words: str

    @property
    def fingerprint(self) -> str:
        """Of what the workload trains, however often it is evaluated."""
        return self.runs[0].result.spec.training_fingerprint


def sections(all_runs: Sequence[Run]) -> list[Section]:
    """Split runs by workload, standard first, and by precision, and set those that failed conformance apart."""
    return [
        _section(precision, failed, tuple(members))
        for (_, precision, failed), members in itertools.groupby(all_runs, key=_section_of)
    ]


def _section_of(run: Run) -> tuple[str, str, bool]:
    return run.result.spec.training_fingerprint, run.content.precision, run.conformance[0] == "failed"


def _section(precision: str, failed: bool, members: tuple[Run, ...]) -> Section:
    spec = members[0].result.spec
    title, slug, reasons = f"{spec.name} {spec.version}, the standard workload, {precision}", "", []
    words = [precision]
    if not is_standard(spec):
        words.append(f"workload {spec.name} {spec.version} ({spec.training_fingerprint[:12]})")
        changed = differences(spec)
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        slug = f"-{spec.training_fingerprint[:12]}"
        title = (
            f"{spec.name} {spec.version}, another workload (fingerprint {spec.training_fingerprint[:12]}), {precision}"
        )
        reasons.append(f"Apart because it is not the standard workload: {'; '.join(changed[:6])}{more}.")
    if precision != "fp32":
        slug += f"-{precision}"
        reasons.append(f"{precision} and fp32 are different arithmetic: their figures stand in tables of their own.")
    if failed:
        title += ": conformance failed"
        words.append("conformance failed")
        why = "; ".join(f"{run.letter} {run.conformance[1]}" for run in members)
        reasons.insert(0, f"Apart because the computed model is not proved to be the specified one: {why}.")
    return Section(title, " ".join(reasons), members, not failed, slug, ", ".join(words))


def same_hardware(members: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Devices that ran more than one platform or engine, with their runs: what differs there is not the hardware."""
    by_device: defaultdict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in members:
        if run.hardware.known:
            by_device[run.hardware.kind, run.hardware.short.casefold(), run.ranks.size, run.ranks.scaling].append(run)
    groups = [group for group in by_device.values() if len({(r.content.platform, r.content.engine) for r in group}) > 1]
    return [(group[0].hardware.short, tuple(group)) for group in groups]


def same_framework(members: Sequence[Run]) -> list[tuple[str, tuple[Run, ...]]]:
    """Platforms and engines that ran on more than one device: what differs there is not the framework."""
    by_engine: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in members:
        if run.hardware.known:
            by_engine[run.content.platform, run.content.engine, run.ranks.words].append(run)
    groups = [group for group in by_engine.values() if len({r.hardware.short.casefold() for r in group}) > 1]
    return [
        (", ".join(filter(None, dict.fromkeys(key))), tuple(group))
        for key, group in by_engine.items()
        if group in groups
    ]
