"""Plots: there when there is something to show, the same each time, safe, and drawable from any valid result."""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import pytest

from aggregate import compare, plots
from aggregate.plots import Plot
from aggregate.tests.factory import FULL_PHASES, SPEC, as_runs, make_result, with_losses


def drawn(*contents: dict[str, Any]) -> dict[str, Plot]:
    (section,) = compare.sections(as_runs(*contents))
    return {plot.name: plot for plot in plots.draw(section)}


def size(plot: Plot) -> tuple[int, int]:
    height, width = matplotlib.image.imread(io.BytesIO(plot.png), format="png").shape[:2]
    return width, height


STEMS = [kind.stem for kind in plots.KINDS]


def test_all_as_png_and_svg() -> None:
    full: Any = {"repeats": 2, "seeds": 2, "phases": FULL_PHASES}
    found = drawn(make_result("mlx", **full), make_result("tf-cuda", device_name="NVIDIA L4", **full))
    assert list(found) == STEMS
    assert len(STEMS) == 9
    for plot in found.values():
        assert plot.missing == ""
        assert min(size(plot)) > 200
        root = ElementTree.fromstring(plot.svg)
        assert root.tag.endswith("svg")
        assert "A (mlx" in plot.alt
        assert "B (tf-cuda" in plot.alt


def test_the_same_results_give_the_same_files() -> None:
    contents = make_result("mlx"), make_result("tf-cuda")
    first, second = drawn(*contents), drawn(*contents)
    assert first == second
    assert not re.search(rb"20\d\d-\d\d-\d\d", first["loss"].svg)


def test_svg_asks_for_nothing_from_outside() -> None:
    for plot in drawn(make_result(device_name='"/><image href="http://evil.example"/>')).values():
        if not plot.svg:
            continue
        elements = list(ElementTree.fromstring(plot.svg).iter())
        references = [value for e in elements for name, value in e.attrib.items() if name.endswith(("href", "src"))]
        assert references
        assert all(reference.startswith("#") for reference in references)
        assert not {e.tag.rpartition("}")[2] for e in elements} & {"image", "script", "foreignObject"}


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("training", "throughput"),
        ("latency", "latency"),
        ("training", "loss"),
        ("training", "energy"),
        ("ceiling", "efficiency"),
        ("convergence", "accuracy"),
        ("convergence", "target"),
        ("convergence", "cost"),
    ],
)
def test_nothing_to_show_says_why(phase: str, name: str) -> None:
    plot = drawn(make_result(phases=[p for p in ("ceiling", "training", "latency", "inference") if p != phase]))[name]
    assert plot.png == plot.svg == b""
    assert plot.missing.startswith("No plot: no run here has a")


def test_a_run_that_lacks_the_samples_is_named() -> None:
    plot = drawn(make_result("mlx"), make_result(failed={("latency", 0): "killed"}))["latency"]
    assert plot.png
    assert plot.missing == "Not in the plot, for want of a set of latency samples to show: B."
    assert "torch-ipex" not in plot.alt


def test_long_and_foreign_and_mathematical_names() -> None:
    for name in ("x" * 200, "$\\frac{1}{$ ^ _ { }", "\u82f1\u7279\u5c14 \u05e9\u05dc\u05d5\u05dd", "<b>&amp;</b>"):
        assert size(drawn(make_result(device_name=name))["throughput"])[0] == 1500


def test_extreme_but_valid_numbers() -> None:
    slow, fast, absurd = make_result("mlx"), make_result("tf-cuda"), make_result()
    for content, seconds in ((slow, 1e8), (fast, 1e-9), (absurd, 1e-300)):
        for outcome in content["phases"]:
            if outcome["phase"] == "training":
                outcome["measurements"]["window_blocks"] = [[1, seconds]]
            if outcome["phase"] == "latency":
                outcome["measurements"]["host_to_host_seconds"] = [seconds]
    for name, plot in drawn(slow, fast, absurd).items():
        assert plot.png or name in ("accuracy", "target", "cost")
        if name in ("throughput", "latency"):
            assert plot.missing.endswith("to show: C.")


def test_equal_constant_and_broken_traces() -> None:
    a, b = make_result("mlx"), make_result("tf-cuda")
    for losses in ([4.0], [4.0, 4.0], [None, None], [0.0, 1e300]):
        assert drawn(with_losses(a, list(losses)), with_losses(b, list(losses)))["loss"].png


def test_one_seed_is_shown_of_each_data_set() -> None:
    runs = as_runs(make_result("mlx", repeats=3), make_result("tf-cuda"), make_result(data="synthetic"))
    shown = plots._one_seed_each(compare.traces(runs))
    assert {(key.data[0], key.seed): list(traces) for key, traces in shown.items()} == {
        ("cifar-100", SPEC.training.seeds[0]): ["A", "B"],
        ("synthetic", SPEC.training.seeds[0]): ["C"],
    }


def test_forty_lines_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MAX_RUNS", 2)
    plot = drawn(make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex"))["throughput"]
    assert plot.missing == "The first 2 of 3 runs are drawn."
    assert "torch-ipex" not in plot.alt


def test_line_styles_are_told_apart_without_colour() -> None:
    styles = [plots._line_style(i) for i in range(14)]
    assert len({(s["linestyle"], s["marker"]) for s in styles}) == 14
