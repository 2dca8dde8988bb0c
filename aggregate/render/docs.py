"""The generated pages of docs/ and the generated block of README.md: what the committed results say today.

Nothing in them depends on the day or the machine that makes them.
"""

import itertools
from collections.abc import Iterator

from aggregate.analysis import ratios, scaling
from aggregate.analysis.comparison import Comparison
from aggregate.analysis.registry import METRICS
from aggregate.analysis.summary import COLUMNS
from aggregate.render import answer, markdown
from shared_spec.errors import UserError

MADE = "<!-- Made by `make readme`; changes are made to the code or to the results. -->"
BEGIN, END = "<!-- answer: made by `make readme` -->", "<!-- /answer -->"
"""What the generated block of README.md stands between."""


def readme(text: str, comparison: Comparison) -> str:
    """README.md with its block made anew; the rest is its writers'.

    Raises:
        UserError: the block's marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise UserError(f"README.md: has no block between {BEGIN} and {END}; put these two lines where it belongs.")
    return f"{before}{BEGIN}\n{_block(comparison)}\n{END}{after}"


def _block(comparison: Comparison) -> str:
    """The answer of the section with most to say, and what the others are."""
    (section, sentences), *others = answer.headline(comparison)
    lines = [f"Of the committed results, {markdown.escaped(section.title)}:", ""]
    lines += [f"- {markdown.escaped(sentence)}" for sentence in sentences]
    elsewhere = f" ({'; '.join(markdown.escaped(other.title) for other, _ in others)})" if others else ""
    return "\n".join(
        [
            *lines,
            "",
            f"All figures, and the other tables{elsewhere}: [docs/results.md](docs/results.md), whose letters these are.",
        ]
    )


def results(comparison: Comparison) -> str:
    """docs/results.md: every table of the report."""
    page = markdown.page(comparison, "Results", [[] for _ in comparison.sections], lasting=True)
    title, _, rest = page.partition("\n")
    about = "Every table of the report on the results in [results/](../results). What each figure means: [metrics](metrics.md)."
    return f"{title}\n\n{MADE}\n\n{about}\n{rest}"


def metrics() -> str:
    """docs/metrics.md: what each figure and each column of the data means."""
    parts = ["# Metrics", MADE, "What each figure of the tables is, in their order; by which rules it is measured: "
             "[method](method.md). A repeat is a process of its own; a table shows the median of the repeats."]  # fmt: skip
    parts += _of_phases()
    parts += [
        "## Comparisons",
        f"- **Scaling efficiency**: {scaling.DEFINITION}.\n- **Times as fast**: {ratios.DEFINITION}",
    ]
    columns = "\n".join(f"- `{name}`: {meaning}" for name, meaning in COLUMNS.items())
    parts += ["## Columns of comparison.csv and of `aggregate.load`", columns]
    return "\n\n".join(parts) + "\n"


def _of_phases() -> Iterator[str]:
    for phase, of_phase in itertools.groupby(METRICS, key=lambda metric: metric.phase):
        yield f"## {phase.replace('_', ' ').capitalize()}"
        yield "\n".join(
            f"- **{metric.title.strip()}**{f', {metric.unit}' if metric.unit else ''} (`{metric.key}`): {metric.definition}"
            for metric in of_phase
        )
