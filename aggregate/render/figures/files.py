"""Charts as files for papers and slides, and as SVG for the page."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aggregate.analysis.merging import Run
from aggregate.render.figures import bars
from aggregate.render.figures.bars import Bars
from aggregate.render.figures.kind import Drawn, Image, Panel
from aggregate.render.figures.style import CSS, Looks, name_of, new_figure

COLUMNS = 3
PANEL = (4.4, 3.1)
"""Inches of a panel; on a phone's 390 pixels its text is still as large as the page's notes."""
BARS_WIDTH, ROW, KEY = 10.0, 0.34, 0.2
SVG = "{http://www.w3.org/2000/svg}"
for _prefix, _address in (("", SVG[1:-1]), ("xlink", "http://www.w3.org/1999/xlink")):
    ElementTree.register_namespace(_prefix, _address)


def of(panels: Sequence[Drawn], runs: Sequence[Run], looks: Looks, title: str) -> tuple[bytes, bytes, bytes]:
    """All panels in one figure with its legend, as PNG, SVG and PDF, with nothing of the day or the machine in them."""
    lines = any(isinstance(panel, Panel) and not panel.rows for panel in panels)
    figure = _figure(panels, 0.5 + lines * KEY * -(-len(runs) // 2))
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=12)
    if lines:
        keys = [Line2D([], [], label=name_of(run), **looks[run.letter].line) for run in runs]
        figure.legend(handles=keys, loc="outside lower left", ncols=2, fontsize=8, handlelength=4)
    png = written(FigureCanvasAgg(figure), "png", Software=None)
    figure.set_layout_engine("none")  # the first canvas's layout serves all
    svg = written(FigureCanvasSVG(figure), "svg", Date=None, Creator=None)
    return png, svg, written(FigureCanvasPdf(figure), "pdf", Creator=None, Producer=None, CreationDate=None)


def written(canvas: Any, form: str, **metadata: None) -> bytes:
    """What a canvas draws, without the given metadata; drawn once, where savefig draws twice."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A device may be named in any script, the fonts at hand may not have it; a box stands for the letter then.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        getattr(canvas, f"print_{form}")(file, metadata=metadata)
    return file.getvalue()


def _figure(panels: Sequence[Drawn], margin: float) -> Figure:
    """Bars one below the other, as wide as the figure; other panels side by side; `margin` in inches for what is around."""
    if all(isinstance(panel, Bars) for panel in panels):
        heights = [_height(panel) for panel in panels]
        figure = new_figure(BARS_WIDTH, margin + sum(heights))
        each = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    else:
        columns = min(COLUMNS, len(panels))
        lines = -(-len(panels) // columns)
        figure = new_figure(PANEL[0] * columns, margin + lines * max(map(_height, panels)))
        each = figure.subplots(lines, columns, squeeze=False)
        for unused in list(each.flat)[len(panels) :]:
            unused.set_axis_off()
    for axes, panel in zip(each.flat, panels, strict=False):
        _fill(axes, panel)
    return figure


def _height(panel: Drawn) -> float:
    if isinstance(panel, Bars):
        return 0.75 + ROW * panel.rows
    return 0.7 + 0.48 * panel.rows if panel.rows else PANEL[1]


def _fill(axes: Axes, panel: Drawn) -> None:
    if isinstance(panel, Bars):
        bars.draw(panel, axes)
    else:
        panel.draw(axes)
        axes.set_title(panel.title)


def inline(panel: Panel) -> Image:
    """One panel as SVG for the page."""
    with mpl.rc_context({"svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none"}):
        figure = new_figure(PANEL[0], _height(panel))
        panel.draw(figure.subplots())
        svg = written(FigureCanvasSVG(figure), "svg", Date=None, Creator=None)
    return Image(panel.title, _for_the_page(svg, panel))


def _for_the_page(svg: bytes, panel: Panel) -> str:
    """Without what the page does not need; with the run of each line, what its points show, and colours by name."""
    root = ElementTree.fromstring(svg)
    for unneeded in [*root.findall(f"{SVG}metadata"), *root.findall(f"{SVG}defs[{SVG}style]")]:
        root.remove(unneeded)
    root.attrib.pop("width"), root.attrib.pop("height")
    tips = {letter: iter(texts) for letter, texts in panel.tips.items()}
    for group in root.iter(f"{SVG}g"):
        name = group.get("id", "")
        if name.startswith("run-"):
            del group.attrib["id"]
            group.set("data-run", name.removeprefix("run-"))
            for point, text in zip(
                group.iter(f"{SVG}use"), tips.get(name.removeprefix("run-"), iter(())), strict=False
            ):
                point.set("data-tip", text)
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in CSS.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"font: [^;\"]*?([\d.]+)px[^;\"]*", r"font-size: \1px", text)
