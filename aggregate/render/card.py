"""A picture to share: the training speed of up to three machines, their names, and the answer's sentence."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from aggregate.analysis.answer import Ranking, Standing
from aggregate.analysis.comparison import Comparison
from aggregate.render import answer, matplotlib_alone, words
from aggregate.render.figures import files
from aggregate.render.figures.bars import value_of
from aggregate.render.figures.style import DIM, INK, RC, colour_of, new_figure, shorten
from shared_spec.errors import UserError

PIXELS = (1200, 630)
"""What social media show whole (Open Graph's usual 1.91 to 1)."""
DPI = 100
MAX_BARS = 3
MAX_LINES = 3


def png(comparison: Comparison) -> bytes:
    """The card of the section that the answer begins with.

    Raises:
        UserError: no run was timed while training.
    """
    for section, _ in answer.headline(comparison):
        if known := answer.training_speed(comparison, section):
            return _drawn(*known, f"DeiT-small on CIFAR-100, {section.runs[0].content.precision}, training images/s")
    raise UserError("There is no card to draw: no result that passed its conformance has timed a training.")


def _drawn(ranking: Ranking, sentence: str, title: str) -> bytes:
    standings = (ranking.best, *ranking.rivals)[:MAX_BARS]
    with matplotlib_alone.styled({**RC, "figure.dpi": DPI, "figure.constrained_layout.use": False}):
        figure = new_figure(PIXELS[0] / DPI, PIXELS[1] / DPI)
        figure.text(0.05, 0.9, title, size=20, weight="bold", va="center")
        axes = figure.add_axes((0.05, 0.3, 0.9, 0.54))
        _draw_bars(axes, standings)
        lines = textwrap.wrap(sentence, 100, max_lines=MAX_LINES, placeholder=" …")
        figure.text(0.05, 0.19, "\n".join(lines), size=15, va="center", linespacing=1.3)
        figure.text(
            0.05, 0.05, "deit-bench: the same training, measured and proved on each machine", size=12, color=DIM
        )
        return files.written(FigureCanvasAgg(figure), "png", Software=None)


def _draw_bars(axes: Axes, standings: Sequence[Standing]) -> None:
    """Bars from zero, best first: a picture without its page must not need an axis."""
    for row, standing in enumerate(standings):
        width = standing.value / standings[0].value
        axes.barh(row + 0.15, width, height=0.42, color=colour_of(standing.run), edgecolor=colour_of(standing.run))
        machine, framework = shorten(words.device(standing.run), 44), shorten(words.framework(standing.run), 30)
        axes.text(0, row - 0.25, f"{machine} · {framework}", size=16, va="center", color=INK)
        axes.text(1, row - 0.25, value_of(standing), size=18, weight="bold", va="center", ha="right", color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(MAX_BARS - 0.5, -0.5)
    axes.set_axis_off()
