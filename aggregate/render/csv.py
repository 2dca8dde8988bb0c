"""All figures as CSV, for other programs."""

import pandas as pd


def page(summary: pd.DataFrame) -> str:
    """The data frame of aggregate.analysis.summary as CSV; several notes of a figure are joined by "; "."""
    flat = summary.assign(notes=summary.notes.map("; ".join))
    for column in flat.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in flat.dtypes]]:
        flat[column] = flat[column].map(_harmless)
    return flat.to_csv(index=False, lineterminator="\n")


def _harmless(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front, as OWASP advises."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
