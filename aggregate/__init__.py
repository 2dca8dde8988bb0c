"""Turns result files of the three platforms into one comparison: `python -m aggregate results/*.json`.

In Python, `aggregate.load(["results"])` gives every figure as a pandas data frame.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from shared_spec.results.prices import Prices

__version__ = "0.2.0"


def load(
    paths: Iterable[str | Path], baseline: str = "", prices: Path | Prices | None = None, *, everything: bool = False
) -> pd.DataFrame:
    """Every figure of some results in tidy long form: one row per run, metric and batch size.

    What each column means is said in `aggregate.analysis.summary.COLUMNS`, how each figure is found in
    `aggregate.analysis.registry.METRICS`. Files that are no valid results are left out; why they are is in `attrs["problems"]`
    of the frame, a sentence each.

    Args:
        paths: result files, or folders of them.
        baseline: what the ratios are against, as for --baseline.
        everything: whether results that newer ones have taken the place of are in it too, as for --all.
        prices: another price file than shared_spec/results/prices.json, or what aggregate.analysis.pricing.chosen made of it.

    Raises:
        shared_spec.errors.UserError: there is no valid result, no such baseline, or the price file is wrong.
    """
    # Not at the top: `python -m aggregate` imports this module first, and wants to say itself what is not installed.
    from aggregate.analysis import comparison, reading  # noqa: PLC0415
    from shared_spec.errors import UserError  # noqa: PLC0415
    from shared_spec.results.prices import load_prices  # noqa: PLC0415

    loaded = reading.load(paths)
    problems = [str(problem) for problem in loaded.problems]
    if not loaded.results:
        raise UserError(f"There is no valid result to compare. {' '.join(problems)}".strip())
    used = load_prices(prices) if prices is None or isinstance(prices, (str, os.PathLike)) else prices
    summary = comparison.compare(loaded.results, loaded.problems, used, baseline, everything=everything).summary
    summary.attrs["problems"] = problems
    return summary
