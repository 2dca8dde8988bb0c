"""Plots: there when there is something to show, the same each time, safe, and drawable from any valid result."""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from aggregate.analysis.sections import sections
from aggregate.render import figures
from aggregate.render.figures import KINDS, batch
from aggregate.render.figures.kind import Plot
from aggregate.render.figures.style import RC, line_style, plain_numbers
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result, with_losses


def all_drawn(*contents: dict[str, Any]) -> dict[str, Plot]:
    (section,) = sections(as_runs(*contents))
    return {plot.name: plot for plot in figures.draw(section)}


def drawn(stem: str, *contents: dict[str, Any]) -> Plot:
    (section,) = sections(as_runs(*contents))
    (kind,) = [kind for kind in KINDS if kind.stem == stem]
    with mpl.rc_context(RC):
        return figures.draw_one(kind, section)


def size(plot: Plot) -> tuple[int, int]:
    height, width = matplotlib.image.imread(io.BytesIO(plot.png), format="png").shape[:2]
    return width, height


STEMS = [kind.stem for kind in KINDS]


def test_all_as_png_and_svg() -> None:
    full: Any = {"repeats": 2, "seeds": 2, "phases": FULL_PHASES}
    plots = all_drawn(
        make_result("mlx", **full), make_result("tf-cuda", device_name="NVIDIA L4", **full),
        make_result("mlx", world_size=2, **full), make_result("tf-cuda", device_name="NVIDIA L4", world_size=2, **full),
    )  # fmt: skip
    assert list(plots) == STEMS
    assert len(STEMS) == 10
    for plot in plots.values():
        assert plot.missing == "" or plot.name == "cost"
        assert min(size(plot)) > 200
        root = ElementTree.fromstring(plot.svg)
        assert root.tag.endswith("svg")
        assert "A (mlx" in plot.alt
        assert "C (tf-cuda" in plot.alt


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ((2500, 7500), ["3,000", "4,000", "5,000", "7,000"]),
        ((2, 40), ["2", "5", "10", "20"]),
        ((0.5, 4000), ["1", "10", "100", "1,000"]),
    ],
)
def test_the_shorter_a_logarithm_the_more_of_its_ticks_have_numbers(
    limits: tuple[float, float], shown: list[str]
) -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    axes.set_xlim(limits)
    plain_numbers(axes.xaxis)
    ticks = [*axes.get_xticks(), *axes.get_xticks(minor=True)]
    labels = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    labelled = {
        tick: label.get_text() for tick, label in zip(ticks, labels, strict=True) if limits[0] <= tick <= limits[1]
    }
    assert [labelled[tick] for tick in sorted(labelled) if labelled[tick]] == shown


def test_the_same_results_give_the_same_files() -> None:
    contents = make_result("mlx"), make_result("tf-cuda", phases=["training", "latency"])
    first, second = all_drawn(*contents), all_drawn(*contents)
    assert first == second
    assert not re.search(rb"20\d\d-\d\d-\d\d", first["loss"].svg)


def test_svg_asks_for_nothing_from_outside() -> None:
    for plot in all_drawn(make_result(device_name='"/><image href="http://evil.example"/>')).values():
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
        ("training", "scaling"),
    ],
)
def test_nothing_to_show_says_why(phase: str, name: str) -> None:
    plot = drawn(name, make_result(phases=[p for p in ("ceiling", "training", "latency", "inference") if p != phase]))
    assert plot.png == plot.svg == b""
    assert plot.missing.startswith("No plot: no run here has a")


def test_a_run_that_lacks_the_samples_is_named() -> None:
    plot = drawn("latency", make_result("mlx"), make_result(failed={("latency", 0): "killed"}))
    assert plot.png
    assert plot.missing == "Not in the plot, for want of a set of latency samples to show: B."
    assert "torch-ipex" not in plot.alt


def test_long_and_foreign_and_mathematical_names() -> None:
    for name in ("x" * 200, "$\\frac{1}{$ ^ _ { }", "\u82f1\u7279\u5c14 \u05e9\u05dc\u05d5\u05dd", "<b>&amp;</b>"):
        assert size(drawn("throughput", make_result(device_name=name)))[0] == 1500


def test_extreme_but_valid_numbers() -> None:
    slow, fast, absurd = make_result("mlx"), make_result("tf-cuda"), make_result()
    for content, seconds in ((slow, 1e8), (fast, 1e-9), (absurd, 1e-300)):
        for outcome in content["phases"]:
            if outcome["phase"] == "training":
                outcome["measurements"]["window_blocks"] = [[1, seconds]]
            if outcome["phase"] == "latency":
                outcome["measurements"]["host_to_host_seconds"] = [seconds]
    for name, plot in all_drawn(slow, fast, absurd).items():
        assert plot.png or name in ("accuracy", "target", "cost", "scaling")
        if name in ("throughput", "latency"):
            assert plot.missing.endswith("to show: C.")


def test_memory_against_batch_is_within_its_axes() -> None:
    figure = batch.draw(as_runs(make_result("mlx", phases=FULL_PHASES)))
    (memory,) = [axes for axes in figure.axes if "memory" in axes.get_title()]
    assert len(figure.axes) == 3
    (line,) = memory.lines
    assert 0 < np.asarray(line.get_ydata(), dtype=float).max() < memory.get_ylim()[1]
    assert [axes.get_title() for axes in batch.draw(as_runs(make_result())).axes] == ["inference, images/s"]


def test_equal_constant_and_broken_traces() -> None:
    a, b = make_result("mlx"), make_result("tf-cuda")
    for losses in ([4.0], [4.0, 4.0], [None, None], [0.0, 1e300]):
        assert drawn("loss", with_losses(a, list(losses)), with_losses(b, list(losses))).png


def test_forty_lines_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_RUNS", 2)
    plot = drawn("throughput", make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex"))
    assert plot.missing == "The first 2 of 3 runs are drawn."
    assert "torch-ipex" not in plot.alt


def test_line_styles_are_told_apart_without_colour() -> None:
    styles = [line_style(i) for i in range(14)]
    assert len({(s["linestyle"], s["marker"]) for s in styles}) == 14
