"""Notes that differ in their numbers alone, said once."""

import re
from collections import Counter
from collections.abc import Sequence

NUMBER = re.compile(r"(?<![\w.])(?<!seed )[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)")
"""A number that stands by itself, not one that is part of a name."""
Skeleton = tuple[str, ...]


def skeleton(note: str) -> Skeleton:
    """The text around the numbers of a note: what alike notes share."""
    return tuple(NUMBER.split(note))


def gist(note: str) -> str:
    """What a note says before it goes into particulars: "the GPU's clock was held down"; of a number its text."""
    return "#".join(NUMBER.split(re.split(r": | \(", note, maxsplit=1)[0]))


def alike(notes: Sequence[str]) -> list[str]:
    """Notes in their order, those that differ in numbers alone as one: "load average 1.6 to 3.3 on 2 cores"."""
    groups: dict[Skeleton, list[str]] = {}
    for note in dict.fromkeys(notes):
        groups.setdefault(skeleton(note), []).append(note)
    return [_as_one(around, group) for around, group in groups.items()]


def of_repeats(notes: Sequence[Sequence[str]]) -> list[str]:
    """The notes of the repeats of a figure; what only some of several have says how many: "7 of 9 repeats: ..."."""
    counts = Counter(skeleton(note) for of_repeat in notes for note in dict.fromkeys(of_repeat))
    said = alike([note for of_repeat in notes for note in of_repeat])
    total = len(notes)
    around = list(dict.fromkeys(skeleton(note) for of_repeat in notes for note in of_repeat))
    return [
        note if counts[each] >= total or note.startswith("seed ") else f"{counts[each]} of {total} repeats: {note}"
        for note, each in zip(said, around, strict=True)
    ]


def _as_one(around: Skeleton, group: Sequence[str]) -> str:
    if len(group) == 1:
        return group[0]
    columns = zip(*(NUMBER.findall(note) for note in group), strict=True)
    text = around[0]
    for numbers, after in zip(columns, around[1:], strict=True):
        text += _range(numbers) + after
    return text


def _range(numbers: Sequence[str]) -> str:
    ordered = sorted(set(numbers), key=lambda number: float(number.replace(",", "")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
