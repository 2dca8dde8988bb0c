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

import aggregate
from aggregate.analysis.summary import COLUMNS
from aggregate.render.folder import MARKER
from aggregate.tests.factory import FULL_PHASES, call, make_result, save, small_spec
from shared_spec.errors import UserError
from shared_spec.results.prices import load_prices

STEMS = ("throughput", "inference", "memory", "latency", "batch", "energy", "efficiency", "loss")
"""Plots that a quick result has something for."""


ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("unrendered")


def results(folder: Path, *contents: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for i, content in enumerate(contents):
        save(content, folder, f"{i}.json")
    return folder


def flat(text: str) -> str:
    """Text without the ends of its lines."""
    return " ".join(text.split())


def test_all_good(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", make_result("mlx"), make_result(data="synthetic"))
    done = call(folder, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert "Training: MLX on Apple M4 Max comes first" in done.stdout
    assert "synthetic stand-in" in done.stdout
    names = {str(path.relative_to(tmp_path / "report")) for path in (tmp_path / "report").rglob("*") if path.is_file()}
    plots = {f"plots/{stem}.{kind}" for stem in STEMS for kind in ("png", "svg", "pdf")}
    assert names == {MARKER, "index.html", "comparison.md", "comparison.csv"} | plots
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
    assert "Training: MLX on Apple M4 Max" in done.stdout
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
    done = call(folder, "--out", tmp_path / "report", "--details")
    assert done.exit_code == 0
    titles = [line for line in done.stdout.splitlines() if line.startswith(("deit-small", "tiny"))]
    assert [title.split(",")[0] for title in titles] == [
        "deit-small-cifar100 1.1",
        "tiny 1.1",
        "deit-small-cifar100 1.1",
    ]
    assert titles[2].endswith("conformance failed")
    slug = small_spec().training_fingerprint[:12]
    assert (tmp_path / "report" / "plots" / f"throughput-{slug}.svg").exists()


def test_same_hardware_tells_what_is_the_frameworks(tmp_path: Path) -> None:
    on_h200 = make_result("mlx", device_name="NVIDIA H200", device_kind="cuda", repeats=3)
    folder = results(tmp_path / "results", on_h200, make_result("tf-cuda", repeats=3), make_result())
    said = r"On the same NVIDIA H200, TensorFlow trains 19 \(1\d.* to 2\d.*\) times as fast as MLX: so much is the framework's\."
    assert re.search(said, flat(call(folder, "--out", tmp_path / "report", "--details").stdout))
    assert re.search(said, (tmp_path / "report" / "comparison.md").read_text())
    apart = results(tmp_path / "apart", make_result("mlx"), make_result("tf-cuda"))
    assert "No two frameworks ran on the same device" in flat(
        call(apart, "--out", tmp_path / "report", "--details").stdout
    )


def test_losses_laid_over_each_other(tmp_path: Path) -> None:
    folder = results(
        tmp_path / "results", make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex", precision="bf16")
    )
    done = call(folder, "--out", tmp_path / "report", "--details")
    assert re.search(
        r"A and B \(fp32\): at most \S+e-05 apart, relative, over 100 common steps of 1 seed", flat(done.stdout)
    )
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
    stems = ("throughput", "memory", "energy", "latency", "loss")
    assert left == {"mine.png"} | {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "pdf")}
    assert len(stale) == 3 * len(STEMS) + 1
    assert (out / "notes.txt").read_text() == "mine"
    assert "No chart: no run here has" in (out / "comparison.md").read_text()


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
    code = "import runpy, sys; sys.modules['aggregate.render.tables'] = None; runpy.run_module('aggregate', run_name='__main__')"
    done = run_module("-c", code)
    assert "Traceback" in done.stderr
    assert "make setup-aggregate" not in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "html"])
def test_forms_for_other_programs(tmp_path: Path, form: str) -> None:
    folder = results(tmp_path / "results", make_result("mlx", repeats=2), make_result("tf-cuda", repeats=2))
    done = call(folder, "--out", tmp_path / "report", "--format", form, "--title", "Mine & yours", "--baseline", "A")
    assert done.exit_code == 0, done.stderr
    if form == "json":
        content = json.loads(done.stdout)
        assert content["title"] == "Mine & yours"
        assert content["answer"][0].startswith("Training: TensorFlow on NVIDIA H200 is fastest")
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
    done = call(folder, *options, "--baseline", "tf-cuda", "--details")
    assert "Speed against B (tf-cuda, xla, NVIDIA L4)" in done.stdout
    assert "a friend at 1.5 USD an hour" in done.stdout
    mine = ["--machine-price", "NVIDIA L4=3000 EUR,years=2", "--tariff", "0.5 EUR", "--exchange-rate", "EUR/USD=2"]
    owned = call(folder, *options, *mine, "--currency", "EUR", "--details")
    assert "NVIDIA L4 of your own at 3000 EUR" in owned.stdout
    assert "your tariff: 0.5 EUR per kWh" in owned.stdout
    assert "1 EUR = 2 USD" in owned.stdout
    slip = call(folder, *options, "--machine-price", "NVIDIA L5=3000")
    assert (slip.exit_code, "no result is of NVIDIA L5" in slip.stderr) == (2, True)
    wrong = call(folder, *options, "--baseline", "nobody")
    assert (wrong.exit_code, "fits none of the results" in wrong.stderr) == (2, True)
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
    folder = results(
        tmp_path / "results",
        make_result("mlx", repeats=2),
        make_result("tf-cuda", repeats=2),
        {"schema_version": "9.0"},
    )
    for _ in range(2):  # the function must not be hidden by a module of its name
        frame = aggregate.load([folder], baseline="mlx")
    assert list(frame.columns) == list(COLUMNS)
    row = frame[(frame["run"] == "B") & (frame["metric"] == "training_throughput")]
    assert row["verdict"].tolist() == ["faster"]
    assert "/schema_version" in frame.attrs["problems"][0]
    mine = aggregate.load([folder], prices=load_prices().changed(currency="EUR"))
    assert set(mine[mine["metric"] == "electricity_full"]["unit"]) <= {"EUR", ""}
    with pytest.raises(UserError, match="no valid result"):
        aggregate.load([tmp_path / "missing.json"])


def test_results_of_the_repository_are_valid(tmp_path: Path) -> None:
    committed = sorted((ROOT / "results").glob("*.json"))
    if not committed:
        pytest.skip("no results in results/ yet")
    done = call(*committed, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert all(json.loads(path.read_text())["schema_version"] for path in committed)


def test_the_same_against_the_same(tmp_path: Path) -> None:
    phases = ("conformance", "training", "latency")
    runs = (make_result("mlx", repeats=repeats, number=repeats, phases=phases) for repeats in (3, 4))
    folder = results(tmp_path / "results", *runs)
    done = call("aa", folder)
    assert done.exit_code == 0, done.output
    assert "| several processes each | Training throughput | gpu-mlx | 3 | 3 | 3 | 0 (0.0%) | 0 |" in done.stdout
    assert "| runs | Training throughput | gpu-mlx | 1 | 1 | 1 | 0 (0.0%) | 0 |" in done.stdout
    assert "| Training throughput | gpu-mlx |" in done.stdout.partition("| metric | class |")[2]


def test_false_verdicts_fail(tmp_path: Path) -> None:
    """A run that is three times as fast as the same thing before."""
    runs = (make_result("mlx", repeats=3, speed=speed, number=i) for i, speed in enumerate((100, 300)))
    done = call("aa", results(tmp_path / "results", *runs))
    assert done.exit_code == 1
    assert "More than 5 % of the verdicts are false" in done.stderr


def test_drawn_comparisons_need_no_file_and_files_that_are_wrong_are_said(tmp_path: Path) -> None:
    drawn = call("aa", "--simulate", 200)
    assert drawn.exit_code == 0, drawn.output
    assert "| cpu | Training throughput | 1 x 2 | 9" in drawn.stdout
    nothing = call("aa")
    assert nothing.exit_code == 2
    assert "python -m aggregate aa results/*.json" in nothing.stderr
    folder = results(tmp_path / "results", make_result("mlx", repeats=2), {"schema_version": "9.0"})
    some = call("aa", folder)
    assert some.exit_code == 1
    assert "1.json: /schema_version" in some.stderr
    assert "gpu-mlx" in some.stdout
