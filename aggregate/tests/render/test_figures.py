"""Charts: as files and for the page, the same on every machine, of any valid numbers."""

import io
import itertools
import math
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from aggregate.analysis.answer import Ranking, Standing, answers
from aggregate.analysis.sections import sections
from aggregate.render import figures, matplotlib_alone
from aggregate.render.figures import KINDS, batch, style
from aggregate.render.figures.bars import Bars, of_answer
from aggregate.render.figures.kind import Image, Plot
from aggregate.render.figures.style import RC, looks, plain_numbers
from aggregate.tests.factory import FULL_PHASES, as_runs, make_result, with_losses

STEMS = [kind.stem for kind in KINDS]


def all_drawn(*contents: dict[str, Any]) -> dict[str, Plot]:
    (section,) = sections(as_runs(*contents))
    return {plot.name: plot for plot in figures.draw(section)}


def drawn(stem: str, *contents: dict[str, Any]) -> Plot:
    (section,) = sections(as_runs(*contents))
    (kind,) = [kind for kind in KINDS if kind.stem == stem]
    with matplotlib_alone.styled(RC):
        return figures.draw_one(kind, section, looks(section.runs))


def test_all_as_files_and_for_the_page() -> None:
    full: Any = {"repeats": 2, "seeds": 2, "phases": FULL_PHASES}
    plots = all_drawn(
        make_result("mlx", **full), make_result("tf-cuda", device_name="NVIDIA L4", **full),
        make_result("mlx", world_size=2, **full), make_result("tf-cuda", device_name="NVIDIA L4", world_size=2, **full),
    )  # fmt: skip
    assert list(plots) == STEMS
    assert len(STEMS) == 12
    for plot in plots.values():
        height, width = matplotlib.image.imread(io.BytesIO(plot.png), format="png").shape[:2]
        assert min(height, width) > 200
        assert plot.pdf.startswith(b"%PDF")
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
        assert plot.panels
        for panel in plot.panels:
            if isinstance(panel, Image):
                root = ElementTree.fromstring(panel.svg)
                assert {e.get("data-run") for e in root.iter() if e.get("data-run")} & set("ABCD")
    assert "A  Apple M4 Max" in plots["throughput"].alt
    assert "NVIDIA L4" in plots["throughput"].alt


def test_points_say_their_values_and_colours_go_by_name() -> None:
    (image, *_) = drawn("accuracy", make_result("mlx", phases=FULL_PHASES)).panels
    assert isinstance(image, Image)
    tips = [e.get("data-tip") for e in ElementTree.fromstring(image.svg).iter() if e.get("data-tip")]
    assert len(tips) == 30  # evaluations: two an epoch
    assert re.fullmatch(r"A: [\d.]+ % after [\d.,]+ minutes", str(tips[0]))
    assert "var(--mlx)" in image.svg
    assert not re.search(r"#[0-9a-f]{6}(?![0-9a-f])", re.sub(r'(id|href)="[^"]*"', "", image.svg))


def test_bars_are_the_answers_figures_best_first_within_their_axis() -> None:
    runs = as_runs(make_result("mlx"), make_result("tf-cuda"), make_result())
    bars = of_answer("Training", answers(runs)["training"])
    assert [s.run.content.platform for s in bars.standings] == ["tf-cuda", "mlx", "torch-ipex"]
    assert bars.logarithmic
    places = [bars.place(standing.value) for standing in bars.standings]
    assert places == sorted(places, reverse=True)
    assert all(0 < place <= 1 for place in places)


@given(st.lists(st.floats(1e-9, 1e12, exclude_min=True), min_size=1, max_size=6))
def test_every_bar_is_on_the_axis_and_longer_where_more(values: list[float]) -> None:
    (run,) = as_runs(RUN)
    standings = tuple(Standing(run, "training_throughput", v, v, v, 1, "images/s") for v in values)
    bars = Bars("", (Ranking("", standings),), (), "")
    places = [bars.place(value) for value in values]
    assert all(0 <= place <= 1 + 1e-9 for place in places)
    assert sorted(values) == [values[i] for i in np.lexsort((values, places))]
    assert all(bars.limits[0] <= tick <= bars.limits[1] for tick in bars.ticks)


RUN = make_result(phases=["conformance"])


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ((2500, 7500), ["3,000", "5,000", "7,000"]),
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
        images = [panel.svg for panel in plot.panels if isinstance(panel, Image)]
        for text in [plot.svg.decode(), *images] if plot.svg else []:
            elements = list(ElementTree.fromstring(text).iter())
            references = [value for e in elements for name, value in e.attrib.items() if name.endswith(("href", "src"))]
            assert references
            assert all(reference.startswith("#") for reference in references)
            assert not {e.tag.rpartition("}")[2] for e in elements} & {"image", "script", "foreignObject"}


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("training", "throughput"),
        ("training", "energy"),
        ("training", "loss"),
        ("ceiling", "efficiency"),
        ("convergence", "accuracy"),
        ("convergence", "target"),
        ("convergence", "cost"),
        ("training", "scaling"),
    ],
)
def test_nothing_to_show_says_why(phase: str, name: str) -> None:
    without = [p for p in ("training", "latency", "inference") if p != phase]
    plot = drawn(name, make_result(phases=without))
    assert plot.png == plot.svg == plot.pdf == b""
    assert not plot.panels
    assert plot.missing.startswith("No chart: no run here has a")


def test_a_run_that_lacks_the_samples_is_named() -> None:
    plot = drawn("accuracy", make_result("mlx", phases=FULL_PHASES), make_result())
    assert plot.png
    assert plot.missing == "Not shown, for want of a full training: B."
    assert "PyTorch" not in plot.alt
    (bars,) = drawn("throughput", make_result("mlx"), make_result(failed={("training", 0): "killed"})).panels
    assert isinstance(bars, Bars)
    assert bars.without == ["B: the training phase failed: killed"]


@pytest.mark.parametrize(
    "name", ["x" * 200, "$\\frac{1}{$ ^ _ { }", "\u82f1\u7279\u5c14 \u05e9\u05dc\u05d5\u05dd", "<b>&amp;</b>"]
)
def test_long_and_foreign_and_mathematical_names(name: str) -> None:
    for stem in ("throughput", "latency"):
        assert drawn(stem, make_result(device_name=name)).png


def test_extreme_but_valid_numbers() -> None:
    slow, fast, absurd = make_result("mlx"), make_result("tf-cuda"), make_result()
    for content, seconds in ((slow, 1e8), (fast, 1e-9), (absurd, 1e-300)):
        for outcome in content["phases"]:
            if outcome["phase"] == "training":
                outcome["measurements"]["window_blocks"] = [[1, seconds]]
            if outcome["phase"] == "latency":
                outcome["measurements"]["host_to_host_seconds"] = [seconds]
    plots = all_drawn(slow, fast, absurd)
    assert {name for name, plot in plots.items() if not plot.png} <= {"accuracy", "target", "cost", "scaling", "batch"}
    (bars,) = plots["throughput"].panels
    assert isinstance(bars, Bars)
    assert [text[0] for text in bars.without] == ["C"]


def test_memory_against_batch_is_within_its_axes() -> None:
    runs = as_runs(make_result("mlx", phases=FULL_PHASES))
    panels = batch.panels(runs, looks(runs))
    assert [panel.title for panel in panels] == [f"{title} against batch" for title, _ in batch.PANELS.values()]
    axes = Figure().subplots()
    panels[1].draw(axes)
    (line,) = axes.lines
    assert 0 < np.asarray(line.get_ydata(), dtype=float).max() < axes.get_ylim()[1]


def test_equal_constant_and_broken_traces() -> None:
    a, b = make_result("mlx"), make_result("tf-cuda")
    for losses in ([4.0], [4.0, 4.0], [None, None], [0.0, 1e300]):
        assert drawn("loss", with_losses(a, list(losses)), with_losses(b, list(losses))).png


def test_forty_lines_at_most_but_every_bar_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_RUNS", 2)
    contents = make_result("mlx"), make_result("tf-cuda"), make_result("torch-ipex")
    plot = drawn("throughput", *contents)
    assert plot.missing == "The first 2 of 3 runs are drawn."
    assert "PyTorch" not in plot.alt
    (bars,) = plot.panels
    assert isinstance(bars, Bars)
    assert len(bars.standings) == 3


def test_colour_is_the_platform_and_the_line_is_the_device_on_which_it_ran() -> None:
    devices: list[dict[str, Any]] = [
        {"device_name": name, "device_kind": "cuda"} for name in ("NVIDIA H200", "NVIDIA L4")
    ]
    known = looks(as_runs(*(make_result(p, **d) for p in ("mlx", "tf-cuda") for d in devices)))
    a, b, c, d = (known[letter] for letter in "ABCD")
    assert a.colour == b.colour != c.colour == d.colour
    assert (a.marker, a.dash) == (c.marker, c.dash) != (b.marker, b.dash) == (d.marker, d.dash)
    twice = looks(as_runs(make_result("mlx"), make_result("mlx", framework_version="0.33")))
    assert twice["A"].fill != twice["B"].fill


def test_platforms_are_told_apart_in_grey_and_stand_out_from_white() -> None:
    lightness = sorted(_luminance(colour) for colour in style.COLOURS.values())
    assert all((b + 0.05) / (a + 0.05) > 1.4 for a, b in itertools.pairwise(lightness))
    assert 1.05 / (lightness[-1] + 0.05) > 3  # WCAG 2.2, 1.4.11


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return math.fsum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
