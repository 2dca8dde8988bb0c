"""What stands beside what, and what is kept apart."""

from aggregate.analysis.sections import same_framework, same_hardware, sections
from aggregate.tests.factory import as_runs, make_result, small_spec


def test_another_workload_is_apart_and_says_where_it_differs() -> None:
    other = make_result(spec=small_spec())
    other["spec"]["standard"] = True  # what the file says of itself is not believed
    standard, tiny = sections(as_runs(other, make_result()))
    assert standard.reason == ""
    assert [run.result.file for run in standard.runs] == ["1.json"]
    assert [run.result.file for run in tiny.runs] == ["0.json"]
    assert "/data/train_images is 512, not 50000" in tiny.reason
    assert tiny.slug == f"-{small_spec().training_fingerprint[:12]}"


def test_failed_conformance_is_apart_with_the_reason() -> None:
    apart = sections(as_runs(make_result(conformance=False), make_result("mlx")))
    assert [section.comparable for section in apart] == [True, False]
    assert [run.result.file for run in apart[1].runs] == ["0.json"]
    assert "failed logits (0.0123, bound 3e-05)" in apart[1].reason


def test_conformance_that_broke_down_proves_nothing() -> None:
    (section,) = sections(as_runs(make_result(failed={("conformance", 0): "out of memory"})))
    assert not section.comparable
    assert "out of memory" in section.reason


def test_unchecked_is_compared_but_marked() -> None:
    (section,) = sections(as_runs(make_result(conformance=None), make_result("mlx")))
    assert section.comparable
    mlx, unchecked = section.runs
    assert unchecked.conformance[0] == "not checked"
    assert any(note.startswith("not checked") for note in unchecked.notes)
    assert not mlx.notes


def test_same_hardware_under_several_frameworks() -> None:
    on_h200 = make_result("mlx", device_name="NVIDIA H200", device_kind="cuda")
    runs = as_runs(
        make_result("tf-cuda"), on_h200, make_result("torch-ipex"), make_result("torch-ipex", precision="bf16")
    )
    ((device, members),) = same_hardware(runs)
    assert device == "NVIDIA H200"
    assert {run.result.file for run in members} == {"0.json", "1.json"}
    engines = as_runs(make_result(), make_result(engine="stock"))
    assert len(same_hardware(engines)) == 1
    assert not same_hardware(as_runs(make_result(cores=2), make_result(engine="stock", cores=56)))
    assert not same_hardware(
        as_runs(make_result(device_name="unknown"), make_result(engine="stock", device_name="unknown"))
    )


def test_same_framework_on_several_machines() -> None:
    runs = as_runs(make_result("tf-cuda"), make_result("tf-cuda", device_name="NVIDIA L4"), make_result("mlx"))
    ((framework, members),) = same_framework(runs)
    assert framework == "tf-cuda, xla"
    assert len(members) == 2


def test_conformance_that_leaves_out_the_hard_checks_proves_nothing() -> None:
    content = make_result()
    conformance = next(o for o in content["phases"] if o["phase"] == "conformance")["measurements"]
    conformance["checks"] = [check for check in conformance["checks"] if check["name"] != "gradients"]
    (run,) = as_runs(content)
    assert run.conformance == ("not checked", "the conformance phase has no check of gradients")
    assert any("no check of gradients" in note for note in run.notes)
