"""What `python -m aggregate aa` says: the A/A test and the simulated comparisons, as Markdown tables."""

import math
from collections.abc import Sequence

from aggregate.analysis import aa, prior
from aggregate.analysis.aa import Spread
from aggregate.analysis.registry import METRIC
from aggregate.analysis.simulation import RATIOS
from aggregate.analysis.simulation import Row as Simulated
from aggregate.render.tables import MISSING


def of_test(rows: Sequence[aa.Row]) -> str:
    """Pairs, those with a verdict, and false verdicts, by level, metric and class, each level with its sum."""
    head = ("pairs of", "metric", "class", "pairs", "of one commit", "with a verdict", "false", "interval without 1")
    lines = []
    for level in aa.LEVELS:
        of_level = [row for row in rows if row.level == level]
        lines += [(level, METRIC[row.metric].title, row.kind, *_counts([row])) for row in of_level]
        lines += [(level, "all", "", *_counts(of_level))] if of_level else []
    return _table(head, lines)


def _counts(rows: Sequence[aa.Row]) -> tuple[str, ...]:
    pairs, one_commit = sum(len(row.pairs) for row in rows), sum(pair.same_commit for row in rows for pair in row.pairs)
    judged, false, apart = (sum(getattr(row, name) for row in rows) for name in ("judged", "false", "apart"))
    share = f" ({false / judged:.1%})" if judged else ""
    return f"{pairs:,}", f"{one_commit:,}", f"{judged:,}", f"{false:,}{share}", f"{apart:,}"


def of_spreads(spreads: Sequence[Spread]) -> str:
    """Measured spreads beside those known beforehand, and where these are from."""
    head = ("metric", "class", "between processes", "prior", "between runs", "prior", "source of the prior")
    measured = {(spread.kind, spread.metric): spread for spread in spreads}
    lines = []
    for (kind, metric), known in prior.TABLE.items():
        found = measured.get((kind, metric))
        process = _sd(found.process, found.process_freedom) if found else MISSING
        run = _sd(found.run, found.run_freedom) if found else MISSING
        lines.append(
            (METRIC[metric].title, kind, process, f"{known.process:g}", run, f"{known.run:g}", known.source)
        )  # fmt: skip
    return _table(head, lines)


def _sd(sd: float, freedom: int) -> str:
    return MISSING if math.isnan(sd) else f"{sd:.2g} ({freedom})"


def of_simulation(rows: Sequence[Simulated]) -> str:
    """Coverage, false verdicts and power, by class, metric and what each side measured."""
    found = tuple(f"finds {true:g}" for true in RATIOS)
    head = (
        "class",
        "metric",
        "runs x processes a side",
        "coverage",
        "false verdicts",
        *found,
        "coverage, spreads exact",
    )
    lines = []
    for row in rows:
        figures = (row.coverage, row.false, *row.power, row.fixed)
        layout = f"{row.layout.runs} x {row.layout.processes}"
        lines.append((row.kind, METRIC[row.metric].title, layout, *map(_share, figures)))
    return _table(head, lines)


def _share(share: float) -> str:
    return MISSING if math.isnan(share) else f"{share:.1%}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
