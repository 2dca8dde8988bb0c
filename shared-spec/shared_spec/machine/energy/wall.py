"""Power of the whole machine, as a wall meter shows it: --power-watts, a constant or two, or the log of a smart plug.

A plug's log is no meter that can be asked: it is complete only when the run has ended, often later. So each window
notes the time of day it began and ended at, and the log is integrated over these (run/plug.py).
"""

import contextlib
import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from shared_spec.errors import UserError
from shared_spec.machine.energy.meter import Clock
from shared_spec.results.quantities import Energy, EnergySource, Span

SOURCE: EnergySource = "wall-meter"
LOG_SCOPE = "whole machine, at the wall, by the log of a plug"
MIN_SAMPLES = 5
MAX_GAP_SECONDS = 60.0
MAX_GAP_SHARE = 0.25
"""Windows with fewer samples, or with a longer time or a larger part of them without any, are not measured."""
FORMS = "a number of watts, idle=6.5,load=38, or a CSV file of a plug with columns for time and watts"
TIME_NAMES = ("time", "timestamp", "datetime", "date", "last_changed", "last_updated", "ts")
WATTS_NAMES = ("watts", "watt", "w", "power", "power_w", "active_power", "apower", "state", "value")
NO_READING = ("", "unavailable", "unknown", "nan", "none", "null")
"""What plugs and their hubs write where they have seen nothing: a gap."""
MILLISECONDS_FROM = 1e11
"""A time in seconds since 1970 is smaller for 3,000 years, and one in milliseconds has not been since 1973."""


@dataclass(frozen=True)
class WallPower:
    """What --power-watts says.

    Attributes:
        load: watts while the machine works, where a constant is given.
        idle: watts while it does nothing.
        log: the CSV file of a plug, in place of both.
    """

    load: float | None = None
    idle: float | None = None
    log: Path | None = None


def parse(text: str) -> WallPower:
    """What --power-watts says; a log is not looked at.

    Raises:
        UserError: it is none of the forms that the option takes.
    """
    with contextlib.suppress(ValueError):
        return WallPower(load=_watts(float(text), text))
    if not re.match(r"\s*(idle|load)\s*=", text):
        if not text.strip():
            raise UserError(f"--power-watts: is empty; give {FORMS}.")
        return WallPower(log=Path(text))
    parts: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            watts = float(value)
        except ValueError:
            raise UserError(f"--power-watts: {part.strip()!r} is not to be understood; give {FORMS}.") from None
        if name not in ("idle", "load") or name in parts:
            raise UserError(f"--power-watts: {part.strip()!r} is not to be understood; give {FORMS}.")
        parts[name] = _watts(watts, part)
    if "load" not in parts:
        raise UserError("--power-watts: load is missing; give both, as idle=6.5,load=38.")
    return WallPower(load=parts["load"], idle=parts.get("idle"))


def _watts(watts: float, text: str) -> float:
    if not 0 < watts < math.inf:
        raise UserError(f"--power-watts: {text.strip()!r} is no power above 0 W; give {FORMS}.")
    return watts


class WallMeter:
    """Joules = watts x seconds, labelled as what they are."""

    source: EnergySource = SOURCE

    def __init__(self, watts: float, clock: Clock, idle: bool = False) -> None:
        self.scope = f"whole machine, at the constant {'idle ' * idle}power given with --power-watts"
        self._watts, self._clock = watts, clock
        self._started = clock()

    def start(self) -> None:
        self._started = self._clock()

    def stop(self) -> Energy:
        joules = self._watts * (self._clock() - self._started)
        return Energy(joules=joules, reason=None, source=self.source, scope=self.scope, samples=1)


@dataclass(frozen=True)
class PlugLog:
    """What a plug has logged.

    Attributes:
        times: seconds since 1970, ascending.
        watts: at these times.
    """

    times: np.ndarray
    watts: np.ndarray

    def energy(self, windows: Sequence[Span]) -> Energy:
        """Joules over windows of the time of day, by the trapezoidal rule; the reason where the log does not cover them."""
        joules, samples, gap = 0.0, 0, 0.0
        for start, end in windows:
            inside = (self.times > start) & (self.times < end)
            points = np.concatenate([[start], self.times[inside], [end]])
            samples += int(inside.sum())
            gap = max(gap, float(np.diff(points).max()))
            if len(self.times):
                watts = np.interp(points, self.times, self.watts)  # beyond either end of the log the nearest sample
                joules += float(np.sum(np.diff(points) * (watts[1:] + watts[:-1]) / 2))
        reason = self._objection(samples, gap, sum(end - start for start, end in windows), joules)
        return Energy(
            joules=None if reason else joules, reason=reason, source=SOURCE, scope=LOG_SCOPE, samples=samples,
            windows=tuple(windows), step_seconds=None if reason else gap,
        )  # fmt: skip

    def _objection(self, samples: int, gap: float, seconds: float, joules: float) -> str | None:
        """Why the samples in windows of so many seconds are no measurement; None where they are."""
        if samples < MIN_SAMPLES:
            what = f"{samples} samples of the plug's log are" if samples else "no sample of the plug's log is"
            return f"{what} within these {seconds:.0f} s ({MIN_SAMPLES} needed): let it log more often, and by the right time"
        if gap > min(MAX_GAP_SECONDS, MAX_GAP_SHARE * seconds):
            return f"the plug's log has a gap of {gap:.0f} s in these {seconds:.0f} s"
        return None if joules > 0 else "the plug's log says 0 W: it is of another plug"


def read_log(path: Path) -> PlugLog:
    """Read the CSV file of a plug.

    Columns are found by their names in a first line, else the first is the time and the second the watts. Times are
    seconds or milliseconds since 1970, or ISO 8601, without an offset in this machine's time zone. A separator may be a
    comma, a semicolon or a tab; a line that is not finished, at the end of a log that is being written, is left out.

    Raises:
        UserError: the file cannot be read or is not such a log; the text names the file and the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--power-watts: {path}: cannot be read ({error.strerror}); give {FORMS}.") from None
    except UnicodeDecodeError:
        raise UserError(f"--power-watts: {path}: is not UTF-8 text, so it is no CSV file.") from None
    lines = text.splitlines()
    if lines and not text.endswith(("\n", "\r")):
        lines.pop()
    separator = next((mark for mark in ";\t" if lines and mark in lines[0]), ",")
    rows = list(csv.reader(lines, delimiter=separator))
    time_column, watts_column, first = _columns(rows[0] if rows else [], path)
    samples: dict[float, float] = {}
    for number, row in enumerate(rows[first:], first + 1):
        if not any(cell.strip() for cell in row):
            continue
        try:
            watts = row[watts_column].strip()
            if watts.casefold() not in NO_READING:
                samples[_seconds(row[time_column].strip())] = _reading(watts, decimal_comma=separator != ",")
        except (IndexError, ValueError, OverflowError, OSError):
            raise UserError(
                f"--power-watts: {path}: line {number} is not a time and watts: {separator.join(row)[:80]!r}."
            ) from None
    times = sorted(samples)
    return PlugLog(np.array(times, dtype=float), np.array([samples[time] for time in times], dtype=float))


def _columns(head: Sequence[str], path: Path) -> tuple[int, int, int]:
    """Columns of time and watts, and the first line of samples."""
    names = [re.sub(r"\W+", "_", cell.strip().casefold()).strip("_") for cell in head]
    if any(name[:1].isdigit() for name in names) or not names:
        return 0, 1, 0
    found = [next((names.index(n) for n in known if n in names), None) for known in (TIME_NAMES, WATTS_NAMES)]
    time, watts = found
    if time is None or watts is None:
        raise UserError(
            f"--power-watts: {path}: no column is called as a time and watts are ({', '.join(head)[:80]}); "
            "call them time and watts."
        )
    return time, watts, 1


def _seconds(text: str) -> float:
    """A time as seconds since 1970."""
    try:
        number = float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
    if not math.isfinite(number):
        raise ValueError(text)
    return number / 1000 if number >= MILLISECONDS_FROM else number


def _reading(text: str, decimal_comma: bool) -> float:
    """Watts, with their unit or without."""
    number = re.sub(r"\s*w(atts?)?$", "", text, flags=re.IGNORECASE)
    watts = float(number.replace(",", ".") if decimal_comma else number)
    if not 0 <= watts < math.inf:
        raise ValueError(text)
    return watts
