"""What the others are measured against: the fastest, or what the user calls by name."""

import pytest

from aggregate.analysis.baseline import baseline_of, named
from aggregate.analysis.sections import sections
from aggregate.tests.factory import as_runs, make_result
from shared_spec.errors import UserError


def test_the_fastest_unless_the_user_says_otherwise() -> None:
    runs = as_runs(make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex"))
    (section,) = sections(runs)
    assert named("", runs) is None
    fastest = baseline_of(section, None)
    assert fastest is not None
    assert fastest.content.platform == "tf-cuda"


def test_by_letter_platform_file_or_device_and_its_counterpart_in_another_precision() -> None:
    runs = as_runs(
        make_result("mlx"), make_result("tf-cuda"), make_result("mlx", precision="bf16"),
        make_result("tf-cuda", precision="bf16"),
    )  # fmt: skip
    fp32, bf16 = sections(runs)
    for wanted in ("b", "tf-cuda", "1.json", "results/1.json", "nvidia h200", "H200", "tf-cuda/xla"):
        found = named(wanted, runs)
        assert baseline_of(fp32, found) is runs[1], wanted
        assert baseline_of(bf16, found) is runs[3], wanted
    only = sections(as_runs(make_result("mlx"), make_result("tf-cuda", precision="bf16")))
    assert baseline_of(only[0], only[1].runs[0]) is None


def test_what_fits_none_or_several_is_answered_with_the_choices() -> None:
    h200, l4 = make_result("tf-cuda"), make_result("tf-cuda", device_name="NVIDIA L4")
    runs = as_runs(make_result("mlx"), h200, l4)
    with pytest.raises(UserError, match="fits none of the results; give the letter of one: A mlx/mlx on Apple M4 Max"):
        named("nobody", runs)
    with pytest.raises(
        UserError, match=r"fits several .*: B tf-cuda/xla on NVIDIA H200, fp32; C tf-cuda/xla on NVIDIA L4"
    ):
        named("tf-cuda", runs)
    assert named("L4", runs) is runs[2]
