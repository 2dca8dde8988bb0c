"""What stands beside what, and what is kept apart."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from aggregate import compare, tables
from aggregate.compare import COLUMNS, Run
from aggregate.hardware import Hardware
from aggregate.tests.factory import as_runs, make_result, small_spec, with_losses


def by_letter(runs: Sequence[Run]) -> dict[str, str]:
    return {run.letter: run.result.file for run in runs}


def test_letters_follow_the_order_of_the_tables() -> None:
    runs = as_runs(make_result("torch-ipex"), make_result("mlx", precision="bf16"), make_result("mlx"))
    assert by_letter(runs) == {"A": "2.json", "B": "0.json", "C": "1.json"}
    letters = compare.letters()
    names = [next(letters) for _ in range(703)]
    assert (names[0], names[25], names[26], names[701], names[702]) == ("A", "Z", "AA", "ZZ", "AAA")


def test_another_workload_is_apart_and_says_where_it_differs() -> None:
    other = make_result(spec=small_spec())
    other["spec"]["standard"] = True  # what the file says of itself is not believed
    standard, tiny = compare.sections(as_runs(other, make_result()))
    assert standard.reason == ""
    assert [run.result.file for run in standard.runs] == ["1.json"]
    assert [run.result.file for run in tiny.runs] == ["0.json"]
    assert "/data/train_images is 512, not 50000" in tiny.reason
    assert tiny.slug == f"-{small_spec().fingerprint[:12]}"


def test_failed_conformance_is_apart_with_the_reason() -> None:
    sections = compare.sections(as_runs(make_result(conformance=False), make_result("mlx")))
    assert [section.comparable for section in sections] == [True, False]
    assert [run.result.file for run in sections[1].runs] == ["0.json"]
    assert "failed logits (0.0123, bound 3e-05)" in sections[1].reason


def test_conformance_that_broke_down_proves_nothing() -> None:
    (section,) = compare.sections(as_runs(make_result(failed={("conformance", 0): "out of memory"})))
    assert not section.comparable
    assert "out of memory" in section.reason


def test_unchecked_is_compared_but_marked() -> None:
    (section,) = compare.sections(as_runs(make_result(conformance=None), make_result("mlx")))
    assert section.comparable
    mlx, unchecked = section.runs
    assert unchecked.conformance[0] == "not checked"
    assert any(note.startswith("not checked") for note in unchecked.notes)
    assert not mlx.notes


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


def test_same_hardware_under_several_frameworks() -> None:
    on_h200 = make_result("mlx", device_name="NVIDIA H200", device_kind="cuda")
    runs = as_runs(
        make_result("tf-cuda"), on_h200, make_result("torch-ipex"), make_result("torch-ipex", precision="bf16")
    )
    ((device, members),) = compare.same_hardware(runs)
    assert device == "NVIDIA H200"
    assert {run.result.file for run in members} == {"0.json", "1.json"}
    engines = as_runs(make_result(), make_result(engine="stock"))
    assert len(compare.same_hardware(engines)) == 1
    assert not compare.same_hardware(as_runs(make_result(cores=2), make_result(engine="stock", cores=56)))
    assert not compare.same_hardware(
        as_runs(make_result(device_name="unknown"), make_result(engine="stock", device_name="unknown"))
    )


def test_summary_takes_the_median_of_the_repeats() -> None:
    content = make_result(repeats=3, failed={("latency", 1): "out of memory"})
    training = [outcome["measurements"] for outcome in content["phases"] if outcome["phase"] == "training"]
    for measured, seconds in zip(training, (1.0, 4.0, 2.0), strict=True):
        measured["window_blocks"] = [[1, seconds]] * 3
    summary = compare.summary(as_runs(content)).set_index("metric")
    throughput = summary.loc["training_throughput"]
    assert (throughput["value"], throughput["low"], throughput["high"]) == (16.0, 8.0, 32.0)
    assert (throughput["repeats"], throughput["n"]) == (3, 9)
    latency = summary.loc["latency_median"]
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
    summary = compare.summary([run]).set_index("metric")
    row = summary.loc["training_throughput"]
    assert (row["runs"], row["repeats"], row["file"]) == (3, 3, "0.json; 1.json; 2.json")
    assert row["value"] == pytest.approx(15.0, rel=0.02)
    checks = summary.loc["conformance_checks"]
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
    titles = [section.title.rpartition(", ")[2] for section in compare.sections(as_runs(*contents))]
    assert titles == ["fp32", "fp32: conformance failed", "bf16"]


def test_notes_of_some_of_the_files_say_so() -> None:
    (run,) = as_runs(make_result(number=1), make_result(number=2, warnings=["the machine was busy"]))
    assert run.notes == ["1 of 2 result files: the machine was busy"]
    hot = make_result("tf-cuda")
    hot["state_after"] = {"gpu_throttle_reasons": ["idle", "hw_thermal_slowdown"]}
    assert as_runs(hot)[0].notes == ["the GPU's clock was held down: hw_thermal_slowdown"]


def test_a_seed_that_misses_counts_as_the_longest() -> None:
    def seeds(*reached: bool) -> dict[str, Any]:
        content = make_result("mlx", phases=("convergence",), seeds=len(reached))
        for i, (outcome, hit) in enumerate(zip(content["phases"], reached, strict=True)):
            measured = outcome["measurements"]
            measured["epochs_to_target"] = 1 if hit else None
            measured["epochs"][0]["seconds"] = 60.0 * (i + 1)
        row = compare.summary(as_runs(content)).set_index("metric").loc["time_to_target"]
        return {str(key): value for key, value in row.items()}

    assert seeds(True, True, True)["value"] == 2.0
    most = seeds(True, True, False)
    assert (most["value"], most["low"], most["repeats"]) == (2.0, 1.0, 2)
    assert math.isnan(most["high"])
    assert most["notes"][0].startswith("1 of 3 repeats gave no value: a target of 45.0% top-1 was not reached")
    few = seeds(True, False, False)
    assert math.isnan(few["value"])
    assert few["reason"].startswith("2 of 3 repeats gave no value: a target of 45.0%")


def test_same_framework_on_several_machines() -> None:
    runs = as_runs(make_result("tf-cuda"), make_result("tf-cuda", device_name="NVIDIA L4"), make_result("mlx"))
    ((framework, members),) = compare.same_framework(runs)
    assert framework == "tf-cuda, xla"
    assert len(members) == 2


def test_summary_is_tidy_and_documented() -> None:
    summary = compare.summary(as_runs(make_result(), make_result("mlx", failed={("training", 0): "killed"})))
    assert list(summary.columns) == list(COLUMNS)
    assert not summary.duplicated(["run", "metric", "batch_size"]).any()
    missing = summary["value"].isna()
    assert (summary.loc[missing, "reason"] != "").all()
    assert (summary.loc[~missing, "reason"] == "").all()
    assert missing.any()
    assert set(summary.loc[missing, "phase"]) == {"training", "max_batch", "convergence"}
    assert math.isfinite(summary.loc[~missing, "value"].sum())


def test_how_far_losses_part() -> None:
    a = with_losses(make_result("mlx"), [4.0, 4.0, 4.0])
    b = with_losses(make_result("tf-cuda"), [4.0, 5.0, 4.4, 1.0])
    (parting,) = compare.partings(as_runs(a, b))
    assert parting.relative == pytest.approx(0.2)
    assert (parting.step, parting.steps, parting.seeds, parting.unequal) == (2, 3, 1, 0)


def test_losses_that_are_not_finite() -> None:
    a = with_losses(make_result("mlx"), [4.0, None, None])
    b = with_losses(make_result("tf-cuda"), [4.0, 4.0, None])
    (parting,) = compare.partings(as_runs(a, b))
    assert (parting.relative, parting.steps, parting.unequal) == (0.0, 1, 1)
    (parting,) = compare.partings(as_runs(with_losses(a, [None]), with_losses(b, [None])))
    assert math.isnan(parting.relative)
    assert parting.steps == 0


def test_the_widest_of_all_common_seeds_counts() -> None:
    a, b = make_result("mlx", repeats=2), make_result("tf-cuda", repeats=3)
    for repeat, losses in ((0, [4.0, 4.0]), (1, [4.0, 4.0])):
        with_losses(a, list(losses), repeat)
    for repeat, losses in ((0, [4.0, 4.0]), (1, [4.0, 2.0]), (2, [9.0])):
        with_losses(b, list(losses), repeat)
    (parting,) = compare.partings(as_runs(a, b))
    assert (parting.relative, parting.seed, parting.step, parting.seeds, parting.steps) == (0.5, 1, 2, 2, 4)


def test_traces_of_other_data_weights_or_seeds_are_not_laid_over_each_other() -> None:
    plain = make_result("mlx")
    weights = make_result("tf-cuda")
    weights["initial_params"]["fingerprint"] = "cd" * 32
    seed = make_result("torch-ipex")
    for outcome in seed["phases"]:
        outcome["seed"] = 5
    assert not compare.partings(as_runs(plain, make_result("tf-cuda", data="synthetic")))
    assert not compare.partings(as_runs(plain, weights))
    assert not compare.partings(as_runs(plain, seed))
    assert compare.partings(as_runs(plain, make_result("tf-cuda")))


def test_relative_difference_of_zeros() -> None:
    assert compare.relative_difference(np.array([0.0, 0.0]), np.array([0.0, 2.0])).tolist() == [0.0, 1.0]


def test_conformance_that_leaves_out_the_hard_checks_proves_nothing() -> None:
    content = make_result()
    conformance = next(o for o in content["phases"] if o["phase"] == "conformance")["measurements"]
    conformance["checks"] = [check for check in conformance["checks"] if check["name"] != "gradients"]
    (run,) = as_runs(content)
    assert run.conformance == ("not checked", "the conformance phase has no check of gradients")
    assert any("no check of gradients" in note for note in run.notes)
