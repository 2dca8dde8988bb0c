"""Results of the same thing become one run, and its repeats one figure."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from aggregate.analysis.hardware import Hardware
from aggregate.analysis.merging import Run, letters, merged
from aggregate.analysis.ratios import ratio
from aggregate.analysis.sections import sections
from aggregate.analysis.summary import COLUMNS, summary
from aggregate.render import tables
from aggregate.tests.factory import FULL_PHASES, SPEC, as_runs, make_result, missed


def by_letter(runs: Sequence[Run]) -> dict[str, str]:
    return {run.letter: run.result.file for run in runs}


def test_letters_follow_the_order_of_the_tables() -> None:
    runs = as_runs(make_result("torch-ipex"), make_result("mlx", precision="bf16"), make_result("mlx"))
    assert by_letter(runs) == {"A": "2.json", "B": "0.json", "C": "1.json"}
    alphabet = letters()
    names = [next(alphabet) for _ in range(703)]
    assert (names[0], names[25], names[26], names[701], names[702]) == ("A", "Z", "AA", "ZZ", "AAA")


def test_run_notes() -> None:
    (run,) = as_runs(make_result(data="synthetic", warnings=["the machine ran on its battery"]))
    assert run.notes == ["measured on the synthetic stand-in, not on CIFAR-100", "the machine ran on its battery"]
    (run,) = as_runs(make_result(data="synthetic", warnings=["measured on the synthetic stand-in, as asked"]))
    assert len(run.notes) == 1  # said once
    emulated = make_result(precision="bf16")
    for outcome in emulated["phases"]:
        outcome["backend"]["precision"]["effective"] = "bf16, emulated"
    assert as_runs(emulated)[0].notes == ["effective precision: bf16, emulated"]


@pytest.mark.parametrize(
    ("name", "count", "cores", "short"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", 1, 2, "Intel Xeon Platinum 8488C, 2 cores"),
        ("AMD Ryzen 7 5800H with Radeon Graphics", 1, 8, "AMD Ryzen 7 5800H, 8 cores"),
        ("AMD EPYC 7B13 64-Core Processor", 1, 64, "AMD EPYC 7B13, 64 cores"),
        ("Apple M4 Max", 1, None, "Apple M4 Max"),
        ("NVIDIA GeForce RTX 4090", 2, None, "2 x NVIDIA RTX 4090"),
        ("CPU", 1, 1, "CPU, 1 core"),
    ],
)
def test_short_device_names(name: str, count: int, cores: int | None, short: str) -> None:
    assert Hardware("cpu", name, count, cores).short == short


def test_summary_takes_the_median_of_the_repeats() -> None:
    content = make_result(repeats=3, failed={("latency", 1): "out of memory"})
    training = [outcome["measurements"] for outcome in content["phases"] if outcome["phase"] == "training"]
    for measured, seconds in zip(training, (1.0, 4.0, 2.0), strict=True):
        measured["window_blocks"] = [[1, seconds]] * 3
    frame = summary(as_runs(content)).set_index("metric")
    throughput = frame.loc["training_throughput"]
    assert (throughput["value"], throughput["low"], throughput["high"]) == (16.0, 8.0, 32.0)
    assert (throughput["repeats"], throughput["n"]) == (3, 9)
    latency = frame.loc["latency_median"]
    assert (latency["repeats"], latency["n"], latency["reason"]) == (2, 2000, "")
    assert latency["notes"] == ("1 of 3 repeats gave no value: the latency phase failed: out of memory",)


def test_a_column_names_every_profile_that_is_in_it() -> None:
    (run,) = as_runs(make_result(number=1), make_result(number=2, repeats=2))
    assert "quick, full" in tables.heading(run)


def test_the_same_thing_measured_again_is_one_run() -> None:
    first, again = make_result(number=1, speed=10.0), make_result(number=2, speed=20.0)
    quick, full = make_result(number=3, speed=15.0), make_result(number=4, framework_version="9.9")
    (run, other) = as_runs(first, again, quick, full)
    assert [result.file for result in run.results] == ["0.json", "1.json", "2.json"]
    assert [result.file for result in other.results] == ["3.json"]
    frame = summary([run]).set_index("metric")
    row = frame.loc["training_throughput"]
    assert (row["runs"], row["repeats"], row["file"]) == (3, 3, "0.json; 1.json; 2.json")
    assert row["value"] == pytest.approx(15.0, rel=0.02)
    checks = frame.loc["conformance_checks"]
    assert (checks["value"], checks["n"]) == (15, 15)


def test_a_failed_proof_a_precision_and_synthetic_data_are_not_the_same_thing() -> None:
    contents = (
        make_result(),
        make_result(conformance=False),
        make_result(precision="bf16"),
        make_result(data="synthetic"),
    )
    assert len(as_runs(*contents)) == 4
    assert len(as_runs(make_result(number=1, device_name="unknown"), make_result(number=2, device_name="unknown"))) == 2
    titles = [section.title.rpartition(", ")[2] for section in sections(as_runs(*contents))]
    assert titles == ["fp32", "fp32: conformance failed", "bf16"]


def test_notes_of_some_of_the_files_say_so() -> None:
    (run,) = as_runs(make_result(number=1), make_result(number=2, warnings=["the machine was busy"]))
    assert run.notes == ["1 of 2 result files: the machine was busy"]
    hot = make_result("tf-cuda")
    hot["state_after"] = {"gpu_throttle_reasons": ["idle", "hw_thermal_slowdown"]}
    assert as_runs(hot)[0].notes == ["the GPU's clock was held down: hw_thermal_slowdown"]


def test_a_window_is_never_merged_into_full_trainings() -> None:
    quick, full = make_result("mlx", number=1), make_result("mlx", number=2, phases=FULL_PHASES, repeats=2)
    (run,) = as_runs(quick, full)
    row = summary([run]).set_index("metric").loc["headline_throughput"]
    assert (row["basis"], row["repeats"]) == ("full training", 1)
    assert "1 more of something else left out" in row["notes"]
    (alone,) = as_runs(quick)
    assert summary([alone]).set_index("metric").loc["headline_throughput"]["basis"] == "steady window"


def test_what_compares_goes_before_what_does_not_and_another_meter_is_not_merged() -> None:
    def with_power(number: int, watts: float, seconds: float, scope: str) -> dict[str, Any]:
        content = make_result("tf-cuda", number=number)
        measured = next(o["measurements"] for o in content["phases"] if o["phase"] == "training")
        measured["window_blocks"] = [[100, seconds / 4]] * 4
        measured["energy"] |= {"joules": watts * seconds, "source": "nvml-counter", "scope": scope}
        return content

    def power(*contents: dict[str, Any]) -> Any:
        (run,) = as_runs(*contents)
        return summary([run]).set_index("metric").loc["power"]

    short, long = with_power(1, 300.0, 10.0, "gpu 0"), with_power(2, 400.0, 60.0, "gpu 0")
    other, sibling = with_power(3, 900.0, 60.0, "the wall"), with_power(4, 410.0, 60.0, "gpu 1")
    assert power(short)["value"] == pytest.approx(300.0)
    assert (power(short, long)["value"], power(short, long)["repeats"]) == (pytest.approx(400.0), 1)
    three = power(long, other, sibling)
    assert (three["value"], three["repeats"]) == (pytest.approx(405.0), 2)
    assert three["basis"] == "nvml-counter: gpu"


def test_a_seed_that_misses_counts_as_the_longest() -> None:
    def seeds(*reached: bool) -> dict[str, Any]:
        content = make_result("mlx", phases=("convergence",), seeds=len(reached))
        for i, (outcome, hit) in enumerate(zip(content["phases"], reached, strict=True)):
            measured = outcome["measurements"]
            measured["evaluations"][0] |= {"seconds": 60.0 * (i + 1), "top1": 0.46}
            if not hit:
                missed(measured)
        row = summary(as_runs(content)).set_index("metric").loc["time_to_target"]
        return {str(key): value for key, value in row.items()}

    assert seeds(True, True, True)["value"] == 2.0
    most = seeds(True, True, False)
    assert (most["value"], most["low"], most["repeats"]) == (2.0, 1.0, 2)
    assert math.isnan(most["high"])
    assert most["notes"][0].startswith("1 of 3 repeats gave no value: a target of 45.0% top-1 was not reached")
    few = seeds(True, False, False)
    assert math.isnan(few["value"])
    assert few["reason"].startswith("2 of 3 repeats gave no value: a target of 45.0%")


def test_a_seed_that_was_trained_twice_is_one_seed() -> None:
    first, again = (make_result("mlx", phases=("convergence",), seeds=2, number=n) for n in (1, 2))
    for content, minutes in ((first, (10.0, 20.0)), (again, (30.0, 40.0))):
        for outcome, m in zip(content["phases"], minutes, strict=True):
            outcome["measurements"]["evaluations"][0] |= {"seconds": 60.0 * m, "top1": 0.46}
    row = summary(as_runs(first, again)).set_index("metric").loc["target_reached"]
    assert (row["value"], row["n"], row["repeats"]) == (2, 2, 2)
    assert "seed 0 was trained 2 times: their median counts as one seed's" in row["notes"]
    time = summary(as_runs(first, again)).set_index("metric").loc["time_to_target"]
    assert (time["value"], time["low"], time["high"], time["repeats"]) == (25.0, 10.0, 40.0, 2)
    missed(again["phases"][0]["measurements"])
    row = summary(as_runs(first, again)).set_index("metric").loc["target_reached"]
    assert (row["value"], row["n"]) == (1, 2)  # a seed that misses in half of its trainings has not reached it
    never = merged(as_runs(first, again)[0].repeats("time_to_target"))
    assert math.isnan(never["value"])


def test_old_and_new_evaluations_share_a_section_and_what_they_take_time_of_is_not_compared() -> None:
    old = SPEC.changed(version="1.0", training=SPEC.training.changed(evaluations_per_epoch=1))
    contents = (
        make_result("mlx", phases=FULL_PHASES), make_result("mlx", phases=FULL_PHASES, spec=old, number=1),
        make_result("mlx", spec=old, number=2),
    )  # fmt: skip
    both, once = as_runs(*contents)
    assert [result.file for result in both.results] == [
        "0.json",
        "2.json",
    ]  # no training: its evaluations do not matter
    assert len(sections([both, once])) == 1
    assert any("evaluated once an epoch, not twice" in note for note in once.notes)
    assert not any("an epoch, not" in note for note in both.notes)
    for metric in ("target_crossing", "full_throughput"):
        assert "evaluated 1 and 2 times an epoch" in ratio(once, both, metric).reason
    assert math.isfinite(ratio(once, both, "training_throughput").ratio)


def test_summary_is_tidy_and_documented() -> None:
    frame = summary(as_runs(make_result(), make_result("mlx", failed={("training", 0): "killed"})))
    assert list(frame.columns) == list(COLUMNS)
    assert not frame.duplicated(["run", "metric", "batch_size"]).any()
    missing = frame["value"].isna()
    assert (frame.loc[missing, "reason"] != "").all()
    assert (frame.loc[~missing, "reason"] == "").all()
    assert missing.any()
    assert set(frame.loc[missing, "phase"]) == {"training", "max_batch", "convergence"}
    assert math.isfinite(frame.loc[~missing, "value"].sum())
