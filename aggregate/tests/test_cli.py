"""`python -m aggregate` as its users meet it."""

import io
import json
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import aggregate
from aggregate.__main__ import main
from aggregate.compare import COLUMNS
from aggregate.tests.factory import FULL_PHASES, make_result, save, small_spec
from shared_spec.errors import UserError

STEMS = ("throughput", "latency", "batch", "energy", "efficiency", "loss")
"""Plots that a quick result has something for."""
ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def results(folder: Path, *contents: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(contents):
        save(content, folder, f"{i}.json")
    return folder


def test_all_good(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", make_result("mlx"), make_result(data="synthetic"))
    done = call(folder, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert "Training throughput, batch 32" in done.stdout
    assert "synthetic stand-in" in done.stdout
    names = {str(path.relative_to(tmp_path / "report")) for path in (tmp_path / "report").rglob("*") if path.is_file()}
    plots = {f"plots/{stem}.{kind}" for stem in STEMS for kind in ("png", "svg")}
    assert names == {"index.html", "comparison.md", "comparison.csv"} | plots
    markdown = (tmp_path / "report" / "comparison.md").read_text()
    assert set(re.findall(r"\]\((.*?)\)", markdown)) == {f"plots/{stem}.png" for stem in STEMS}
    assert str(tmp_path) not in markdown
    assert set(pd.read_csv(tmp_path / "report" / "comparison.csv")["file"]) == {"0.json", "1.json"}


def test_some_bad(tmp_path: Path) -> None:
    folder = results(
        tmp_path / "results", make_result("mlx"), {"schema_version": "9.0"}, make_result() | {"precision": "fp8"}
    )
    done = call(folder, "--out", tmp_path / "report")
    assert done.exit_code == 1
    assert "/schema_version" in done.stderr
    assert "/precision" in done.stderr
    assert "2 of the files given are not compared" in done.stderr
    assert "Training throughput" in done.stdout
    markdown = (tmp_path / "report" / "comparison.md").read_text()
    assert "1.json: /schema" in markdown.replace("\\", "")
    assert str(tmp_path) not in markdown


@pytest.mark.parametrize("arguments", [[], ["nowhere/*.json"], ["missing.json"]])
def test_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report").exists()


def test_workloads_are_kept_apart(tmp_path: Path) -> None:
    folder = results(
        tmp_path / "results", make_result(), make_result(spec=small_spec()), make_result("mlx", conformance=False)
    )
    done = call(folder, "--out", tmp_path / "report")
    assert done.exit_code == 0
    titles = [line for line in done.stdout.splitlines() if line.startswith(("deit-small", "tiny"))]
    assert [title.split(",")[0] for title in titles] == [
        "deit-small-cifar100 1.0",
        "deit-small-cifar100 1.0",
        "tiny 1.0",
    ]
    assert titles[1].endswith("conformance failed")
    slug = small_spec().fingerprint[:12]
    assert (tmp_path / "report" / "plots" / f"throughput-{slug}.svg").exists()


def test_same_hardware_has_a_table_of_its_own(tmp_path: Path) -> None:
    on_h200 = make_result("mlx", device_name="NVIDIA H200", device_kind="cuda")
    folder = results(tmp_path / "results", on_h200, make_result("tf-cuda"), make_result())
    done = call(folder, "--out", tmp_path / "report")
    assert "Same hardware: NVIDIA H200" in done.stdout
    assert "### Same hardware: NVIDIA H200" in (tmp_path / "report" / "comparison.md").read_text()
    only = results(tmp_path / "only", on_h200, make_result("tf-cuda"))
    assert "All of these ran on the same hardware: NVIDIA H200." in call(only, "--out", tmp_path / "report").stdout


def test_losses_laid_over_each_other(tmp_path: Path) -> None:
    folder = results(
        tmp_path / "results", make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex", precision="bf16")
    )
    done = call(folder, "--out", tmp_path / "report")
    assert re.search(r"A and B \(fp32\): at most \S+e-05 apart, relative, over 100 common steps of 1 seed", done.stdout)
    markdown = (tmp_path / "report" / "comparison.md").read_text()
    assert len(re.findall(r"^- [A-C] and [A-C] \(", markdown, re.MULTILINE)) == 3


def test_a_new_report_leaves_no_stale_plot_and_no_foreign_file_behind(tmp_path: Path) -> None:
    out = tmp_path / "report"
    call(results(tmp_path / "a", make_result(spec=small_spec())), "--out", out)
    (out / "notes.txt").write_text("mine")
    (out / "plots" / "mine.png").write_text("mine")
    stale = {path.name for path in (out / "plots").iterdir()}
    done = call(results(tmp_path / "b", make_result(phases=["training"])), "--out", out)
    assert done.exit_code == 0
    left = {path.name for path in (out / "plots").iterdir()}
    stems = ("throughput", "energy", "loss")
    assert left == {"mine.png"} | {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert len(stale) == 2 * len(STEMS) + 1
    assert (out / "notes.txt").read_text() == "mine"
    assert "No plot: no run here has" in (out / "comparison.md").read_text()


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call(results(tmp_path / "results", make_result()), "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert re.search(r"--out .*: cannot be written to", done.stderr)


def run_module(*arguments: str, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env}
    )


def test_as_a_module_from_the_root_of_a_clone(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", make_result("mlx"), make_result(device_name="\u82f1\u7279\u5c14"))
    files = sorted(map(str, folder.glob("*.json")))
    done = run_module("-m", "aggregate", *files, "--out", str(tmp_path / "report"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) > 0
    assert (tmp_path / "report" / "comparison.md").exists()


def test_a_python_without_the_dependencies_is_told_how_to_get_them() -> None:
    done = run_module("-m", "aggregate", "x.json", python=("-S",), PYTHONPATH="")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not installed in this Python; run `make setup-aggregate`" in done.stderr


@pytest.mark.parametrize("name", ["jinja2", "scipy", "pandas", "matplotlib", "shared_spec", "pydantic"])
def test_any_one_dependency_missing(name: str) -> None:
    code = f"import runpy, sys; sys.modules[{name!r}] = None; runpy.run_module('aggregate', run_name='__main__')"
    done = run_module("-c", code)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}")
    assert done.stderr.count("\n") == 1


def test_a_fault_of_our_own_is_not_taken_for_a_missing_dependency() -> None:
    code = (
        "import runpy, sys; sys.modules['aggregate.tables'] = None; runpy.run_module('aggregate', run_name='__main__')"
    )
    done = run_module("-c", code)
    assert "Traceback" in done.stderr
    assert "make setup-aggregate" not in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "html"])
def test_forms_for_other_programs(tmp_path: Path, form: str) -> None:
    folder = results(tmp_path / "results", make_result("mlx"), make_result("tf-cuda"))
    done = call(folder, "--out", tmp_path / "report", "--format", form, "--title", "Mine & yours")
    assert done.exit_code == 0, done.stderr
    if form == "json":
        content = json.loads(done.stdout)
        assert content["title"] == "Mine & yours"
        assert {figure["verdict"] for figure in content["figures"]} >= {None, "faster"}
    elif form == "csv":
        assert set(pd.read_csv(io.StringIO(done.stdout))["run"]) == {"A", "B"}
    else:
        name, title = {
            "markdown": ("comparison.md", "# Mine \\& yours"), "html": ("index.html", "<h1>Mine &amp; yours</h1>"),
        }[form]  # fmt: skip
        assert done.stdout == (tmp_path / "report" / name).read_text()
        assert title in done.stdout


def test_baseline_and_prices(tmp_path: Path) -> None:
    l4 = make_result("tf-cuda", device_name="NVIDIA L4", phases=FULL_PHASES)
    folder = results(tmp_path / "results", make_result("mlx"), l4)
    prices = json.loads(resources.files("shared_spec").joinpath("results", "prices.json").read_text())
    prices["rentals"]["items"] = [{"name": "a friend", "per_hour": 1.5, "devices": ["NVIDIA L4"], "cores": None}]
    options = "--out", tmp_path / "report", "--prices", save(prices, tmp_path, "prices.json")
    done = call(folder, *options, "--baseline", "tf-cuda")
    assert "Times as fast as B (tf-cuda, xla, NVIDIA L4)" in done.stdout
    assert "a friend at 1.5 USD an hour" in done.stdout
    wrong = call(folder, *options, "--baseline", "nobody")
    assert (wrong.exit_code, "no run is called so" in wrong.stderr) == (2, True)
    missing = call(folder, "--prices", tmp_path / "none.json")
    assert (missing.exit_code, "cannot be read" in missing.stderr) == (2, True)


def test_warnings_can_fail_a_build(tmp_path: Path) -> None:
    clean = results(tmp_path / "a", make_result("mlx"))
    warned = results(tmp_path / "b", make_result("mlx", warnings=["the machine ran on its battery"]))
    assert call(clean, "--out", tmp_path / "report", "--fail-on-warning").exit_code == 0
    assert call(warned, "--out", tmp_path / "report").exit_code == 0
    done = call(warned, "--out", tmp_path / "report", "--fail-on-warning")
    assert (done.exit_code, "A: the machine ran on its battery" in done.stderr) == (3, True)


def test_as_a_data_frame(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", make_result("mlx"), make_result("tf-cuda"), {"schema_version": "9.0"})
    for _ in range(2):  # the function must not be hidden by a module of its name
        frame = aggregate.load([folder])
    assert list(frame.columns) == list(COLUMNS)
    row = frame[(frame["run"] == "B") & (frame["metric"] == "training_throughput")]
    assert row["verdict"].tolist() == ["faster"]
    assert "/schema_version" in frame.attrs["problems"][0]
    with pytest.raises(UserError, match="no valid result"):
        aggregate.load([tmp_path / "missing.json"])


def test_check_of_a_good_result(tmp_path: Path) -> None:
    done = call("check", save(make_result(phases=FULL_PHASES), tmp_path))
    assert done.exit_code == 0, done.stdout
    assert done.stdout.endswith("Fit to be published.\n")
    assert "!  the quick profile" in done.stdout
    assert "no full training" not in done.stdout


def test_check_says_that_nothing_was_trained_to_the_end(tmp_path: Path) -> None:
    done = call("check", save(make_result(), tmp_path))
    assert "!  no full training" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spec": small_spec()}, "no  not the standard workload (/name is tiny"),
        ({"conformance": False}, "no  conformance failed: failed logits"),
        ({"conformance": None}, "no  conformance not checked"),
        ({"warnings": ["see /home/jane/deit"]}, "no  a path of a user at /warnings/0"),
        ({"warnings": ["see /opt/secret/tool"]}, "no  a path, or the name of this host or user, at /warnings/0"),
        ({"warnings": ["ask jane.doe@example.org"]}, "no  an e-mail address at /warnings/0"),
        ({"warnings": ["token ghp_0123456789abcdefghij0123"]}, "no  a key at /warnings/0"),
        ({"device_name": "box at 192.168.0.7"}, "no  an address of a private network at /phases/0/backend/device/name"),
    ],
)
def test_check_of_a_result_that_is_not_fit(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    done = call("check", save(make_result(**change), tmp_path))
    assert done.exit_code == 1
    assert said in done.stdout
    assert done.stdout.endswith("Not fit to be published.\n")


def test_check_of_what_is_changed_unknown_or_broken(tmp_path: Path) -> None:
    for change, said in (({"git_clean": False}, "a checkout with changes"), ({"git_commit": None}, "which commit")):
        result = make_result()
        result["software"] |= change
        assert said in call("check", save(result, tmp_path)).stdout
    assert "/engine" in call("check", save(make_result() | {"engine": ""}, tmp_path)).stdout
    assert call("check", tmp_path / "missing.json").exit_code == 1
    versions = make_result()
    versions["software"]["packages"] = {"nvidia-curand-cu12": "10.3.9.90", "x": "192.168.1.1"}
    assert call("check", save(versions, tmp_path)).exit_code == 0


def test_results_of_the_repository_are_valid(tmp_path: Path) -> None:
    committed = sorted((ROOT / "results").glob("*.json"))
    if not committed:
        pytest.skip("no results in results/ yet")
    done = call(*committed, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert all(json.loads(path.read_text())["schema_version"] for path in committed)
