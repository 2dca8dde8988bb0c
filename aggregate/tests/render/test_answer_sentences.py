"""The sentences on top, as a new reader meets them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aggregate.analysis.comparison import Comparison, compare
from aggregate.analysis.ratios import Ratio
from aggregate.analysis.reading import load
from aggregate.analysis.result import Result
from aggregate.render import answer, report, words
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result, small_spec
from aggregate.tests.machines import fifty
from shared_spec.results import format

RESULTS = Path(__file__).parents[3] / "results"


def compared(*contents: dict[str, Any]) -> Comparison:
    return compare([Result(f"{i}.json", format.parse(content)) for i, content in enumerate(contents)], [], PRICES)


def test_every_question_has_its_sentence() -> None:
    full = (make_result(name, phases=FULL_PHASES, repeats=2) for name in ("mlx", "tf-cuda", "torch-ipex"))
    told = answer.top(compared(*full))
    starts = [sentence.partition(":")[0] for sentence in told]
    assert starts == [
        "A full training", "One image at a time", "Many images at a time", "Training to 45 % top-1", "Memory of a training",
        "Largest batch that trains", "Not known",
    ]  # fmt: skip
    assert "TensorFlow on NVIDIA H200 is fastest" in told[1]
    assert "PyTorch + IPEX on Intel Xeon Platinum 8488C (8 cores)" in told[0]
    assert all(sentence.endswith(".") for sentence in told)


def test_one_process_each_gives_the_factor_and_no_verdict() -> None:
    training = answer.top(compared(make_result("mlx"), make_result("tf-cuda")))[0]
    assert "comes first" in training
    assert re.search(r"1\d(\.\d)? times as fast as MLX on Apple M4 Max \(18\d\), one process each\.$", training)
    assert not re.search("fastest|faster", training)


def test_a_single_result_is_told_without_a_comparison() -> None:
    told = answer.top(compared(make_result("mlx")))
    assert re.match(r"Training: MLX on Apple M4 Max, 1\d\d images/s in a steady window at batch 32\.", told[0])
    assert told[-1].startswith(
        "Not known: time, energy and cost of a training to the target (no full training was run)"
    )


def test_what_fifty_machines_lack_is_counted_and_not_listed() -> None:
    told = answer.top(compared(*fifty()))
    (unknown,) = [sentence for sentence in told if sentence.startswith("Not known: ")]
    assert "time, energy and cost of a training to the target for 30 of the 46 (no full training was run)" in unknown
    assert len(unknown) < 300


def test_of_many_reasons_those_are_given_that_leave_most_open() -> None:
    failed = [
        make_result(device_name=f"CPU {i}", failed={("training", 0): f"out of memory: try {i}"}) for i in range(9)
    ]
    (unknown,) = [text for text in answer.top(compared(make_result(), *failed)) if text.startswith("Not known: ")]
    assert unknown.count("(") == answer.MAX_UNKNOWN
    assert "(no full training was run)" in unknown
    assert unknown.endswith("; the tables have the rest.")


def test_what_is_not_proved_is_not_answered() -> None:
    assert answer.top(compared(make_result("mlx", conformance=False))) == []
    both = answer.top(compared(make_result("mlx"), make_result("tf-cuda", conformance=False)))
    assert not any("TensorFlow" in sentence for sentence in both)


def test_other_sections_follow_in_a_sentence_each() -> None:
    told = answer.top(compared(make_result("mlx"), make_result("tf-cuda"), make_result("mlx", precision="bf16")))
    assert told[-1].startswith("bf16: MLX on Apple M4 Max trains")
    other = answer.top(compared(make_result("mlx", spec=small_spec()), make_result("tf-cuda")))
    assert told[0].startswith("Training: ")
    assert other[-1].startswith("fp32, workload tiny 1.1")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict", "text"),
    [
        (99.123, 95, 103, "faster", "99.1 times as fast as"),
        (1.9, 1.88, 1.92, "faster", "1.9 times as fast as"),
        (1.95, 1.43, 2.66, "faster", "1.95 (1.43 to 2.66) times as fast as"),
        (1.12, 1.1, 1.14, "faster", "12 % faster than"),
        (1.12, 1.02, 1.23, "faster", "12 (2 to 23) % faster than"),
        (1.03, 0.97, 1.09, "too close to call", "about as fast as"),
        (1.001, 1.0005, 1.0015, "faster", "about as fast as"),
        (290.6, float("nan"), float("nan"), "", "291 times as fast as"),
        (1.0004, float("nan"), float("nan"), "", "about as fast as"),
    ],
)
def test_factors_are_read_as_people_say_them(ratio: float, low: float, high: float, verdict: str, text: str) -> None:
    assert words.times(Ratio("A", "training_throughput", ratio, low, high, verdict=verdict)) == text


def test_runs_that_are_called_the_same_are_told_apart_by_letter() -> None:
    (section,) = compared(make_result("mlx"), make_result("mlx", framework_version="9.9")).sections
    assert list(words.names(section.runs).values()) == ["MLX on Apple M4 Max (A)", "MLX on Apple M4 Max (B)"]


@pytest.mark.usefixtures("unrendered")
def test_the_same_sentences_stand_in_every_form(tmp_path: Path) -> None:
    comparison = compared(make_result("mlx"), make_result("tf-cuda"), make_result("mlx", precision="bf16"))
    plots = report.write(comparison, tmp_path)
    told = answer.top(comparison)
    assert json.loads(report.as_text(comparison, plots, "json"))["answer"] == told
    markdown = (tmp_path / "comparison.md").read_text().replace("\\", "")
    assert all(sentence in markdown for sentence in told)


def test_no_word_of_the_program_is_in_the_answer_on_the_committed_results() -> None:
    loaded = load([RESULTS])
    comparison = compare(loaded.results, loaded.problems, PRICES)
    for section in comparison.sections:
        text = " ".join([*answer.of_section(comparison, section), answer.what_differs(section)])
        assert not re.search(
            r"phase|convergence|nvml|_peak|max_batch|tf-cuda|torch-ipex|\bnan\b|None|0\.0\d+ times", text
        )
