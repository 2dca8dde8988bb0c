"""What is said of the comparison in sentences."""

import math
from collections.abc import Sequence
from pathlib import Path

from aggregate.analysis import series
from aggregate.analysis.growth import MemoryGrowth, Slowdown, memory_growth, slowdown
from aggregate.analysis.losses import Divergence
from aggregate.analysis.merging import Run
from aggregate.analysis.reading import Problem
from aggregate.analysis.sections import Section, same_framework, same_hardware
from aggregate.render.tables import number

MAX_PAIRS = 66
"""Pairs of loss traces listed: all of twelve runs."""


def sentences(section: Section, divergences: Sequence[Divergence]) -> list[str]:
    """What the terminal says below the table of a section: shared hardware, and the widest loss divergence."""
    texts = shared(section)
    for mixed, words in ((False, "Losses of one precision"), (True, "Losses across precisions")):
        of_kind = [each for each in divergences if (len(each.precisions) > 1) is mixed]
        if of_kind:
            furthest = max(of_kind, key=lambda each: each.width)
            among = f", the furthest apart of {len(of_kind):,} pairs" if len(of_kind) > 1 else ""
            texts.append(f"{words}{among}: {divergence(furthest)}.")
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
