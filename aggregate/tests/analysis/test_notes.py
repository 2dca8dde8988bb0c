"""Notes that differ in their numbers alone."""

from hypothesis import given
from hypothesis import strategies as st

from aggregate.analysis import notes


def test_alike_notes_are_one_with_the_range_of_their_numbers() -> None:
    busy = "the machine was busy at the start: load average {} on 2 cores"
    assert notes.alike([busy.format(1.6), "another", busy.format(3.3), busy.format(2)]) == [
        busy.format("1.6 to 3.3"), "another",
    ]  # fmt: skip
    assert notes.alike(["at batch 1,024", "at batch 64"]) == ["at batch 64 to 1,024"]


def test_numbers_that_are_part_of_a_name_tell_notes_apart() -> None:
    assert len(notes.alike(["bf16 is emulated", "fp32 is emulated"])) == 2
    assert len(notes.alike(["version 2.21.0", "version 2.8.0"])) == 2


def test_how_many_repeats_are_concerned() -> None:
    uneven = "step times were uneven: {}%"
    repeats = [[uneven.format(5)], [], [uneven.format(24)]]
    assert notes.of_repeats(repeats) == ["2 of 3 repeats: step times were uneven: 5 to 24%"]
    assert notes.of_repeats([["always"], ["always"]]) == ["always"]
    assert notes.of_repeats([]) == []


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_notes_are_merged_without_loss_of_a_kind(said: list[str]) -> None:
    assert len(notes.alike(said)) == len({notes.skeleton(note) for note in said})
    assert len(notes.alike(notes.alike(said))) <= len(notes.alike(said))
