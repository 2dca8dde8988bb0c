"""Plots: there when there is something to show, the same each time, safe, and drawable from any valid result."""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

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
    found = drawn(
        make_result("mlx", **full), make_result("tf-cuda", device_name="NVIDIA L4", **full),
        make_result("mlx", world_size=2, **full), make_result("tf-cuda", device_name="NVIDIA L4", world_size=2, **full),
    )  # fmt: skip
    assert list(found) == STEMS
    assert len(STEMS) == 10
    for plot in found.values():
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
    plots._plain_numbers(axes.xaxis)
    ticks = [*axes.get_xticks(), *axes.get_xticks(minor=True)]
    labels = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    found = {
        tick: label.get_text() for tick, label in zip(ticks, labels, strict=True) if limits[0] <= tick <= limits[1]
    }
    assert [found[tick] for tick in sorted(found) if found[tick]] == shown


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
        ("training", "scaling"),
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
        assert plot.png or name in ("accuracy", "target", "cost", "scaling")
        if name in ("throughput", "latency"):
            assert plot.missing.endswith("to show: C.")


def test_memory_against_batch_is_within_its_axes() -> None:
    figure = plots.batch(as_runs(make_result("mlx", phases=FULL_PHASES)))
    (memory,) = [axes for axes in figure.axes if "memory" in axes.get_title()]
    assert len(figure.axes) == 3
    (line,) = memory.lines
    assert 0 < np.asarray(line.get_ydata(), dtype=float).max() < memory.get_ylim()[1]
    assert [axes.get_title() for axes in plots.batch(as_runs(make_result())).axes] == ["inference, images/s"]


def test_growth_with_the_batch_is_said_and_what_is_steeper_is_found() -> None:
    linear, steep = [(32, 3.0), (64, 5.0), (192, 13.0)], [(32, 3.0), (64, 5.0), (128, 14.0)]
    said = "from batch 32 to {} the peak memory grows by {} MiB an image"
    assert plots._memory_growth(linear) == [said.format(192, "64.0")]
    assert plots._memory_growth(steep) == [said.format(128, "117") + ", and more steeply from batch 64 on"]
    assert plots._memory_growth(linear[:1]) == []
    assert plots._slower("training", [(1, 10.0), (2, 12.0), (4, 11.8)]) == []
    (slower,) = plots._slower("training", [(1, 10.0), (2, 12.0), (4, 8.0)])
    assert slower == (
        "training time grows faster than the batch at 4: an image takes 1.50 times as long as at batch 2"
    )  # fmt: skip
    notes = drawn(make_result("mlx", phases=FULL_PHASES))["batch"].notes
    assert notes == ("A: from batch 32 to 192 the peak memory grows by 64.0 MiB an image.",)


def test_a_seed_that_misses_counts_as_never_in_the_plot_as_in_the_table() -> None:
    content = make_result("mlx", phases=FULL_PHASES, seeds=3)
    trainings = [o["measurements"] for o in content["phases"] if o["phase"] == "convergence"]
    trainings[0] |= {"epochs_to_target": None, "seconds_to_target": None}
    (run,) = as_runs(content)
    two = plots._repeats(run, "time_to_target")
    assert two.middle == max(two.values) == compare.merged(run.figures["time_to_target", None])["value"]
    assert two.words.endswith("(n = 2 of 3)")
    trainings[1] |= {"epochs_to_target": None, "seconds_to_target": None}
    one = plots._repeats(as_runs(content)[0], "time_to_target")
    assert (len(one.values), one.words) == (1, "median: never  (n = 1 of 3)")
    assert np.isnan(one.middle)
    trainings[2] |= {"epochs_to_target": None, "seconds_to_target": None}
    assert plots._repeats(as_runs(content)[0], "time_to_target").words == "not reached"


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
