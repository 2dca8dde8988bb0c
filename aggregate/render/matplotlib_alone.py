"""Matplotlib as its makers ship it: no setting of the user's reaches a plot.

The first import of matplotlib reads $MPLBACKEND and matplotlibrc, and fails where they name what is not there. What was
read by then, by whoever imported it earlier, `styled` leaves out.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _settings_out_of_sight() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in ("MPLBACKEND", "MATPLOTLIBRC") if name in os.environ}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        yield
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(hidden)


logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it keeps its cache elsewhere concerns nobody
with _settings_out_of_sight():
    import matplotlib as mpl


@contextmanager
def styled(settings: Any) -> Iterator[None]:
    """Matplotlib's own defaults and these settings, whatever was set before; that comes back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield
