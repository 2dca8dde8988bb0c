"""What --power-watts takes, and the log of a plug over windows of the time of day."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from shared_spec.errors import UserError
from shared_spec.machine.energy.wall import PlugLog, WallPower, parse, read_log

START = 1_764_000_000.0


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("42", WallPower(load=42.0)),
        ("idle=6.5,load=38", WallPower(load=38.0, idle=6.5)),
        (" load=38 , idle = 6.5", WallPower(load=38.0, idle=6.5)),
        ("load=38", WallPower(load=38.0)),
        ("plug.csv", WallPower(log=Path("plug.csv"))),
    ],
)
def test_what_the_option_takes(text: str, power: WallPower) -> None:
    assert parse(text) == power


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "no power above 0 W"),
        ("-3", "no power above 0 W"),
        ("nan", "no power above 0 W"),
        ("inf", "no power above 0 W"),
        ("", "is empty"),
        ("idle=6", "load is missing"),
        ("idle=6,load=x", "'load=x' is not to be understood"),
        ("load=38,load=39", "'load=39' is not to be understood"),
        ("load=38,max=40", "'max=40' is not to be understood"),
    ],
)
def test_what_it_does_not_take(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(text)


def log(seconds: np.ndarray, watts: np.ndarray) -> PlugLog:
    return PlugLog(START + seconds, watts)


def test_a_window_is_integrated_between_its_very_ends() -> None:
    seconds = np.arange(0, 101, 2.0)
    ramp = log(seconds, 10 + seconds)  # watts rise by one a second
    energy = ramp.energy([(START + 20.5, START + 60.5)])
    assert energy.joules == pytest.approx(40 * (10 + 40.5))
    assert (energy.source, energy.samples) == ("wall-meter", 20)
    assert "whole machine" in energy.scope


def test_windows_of_several_processes_add_up() -> None:
    steady = log(np.arange(0, 200, 5.0), np.full(40, 30.0))
    assert steady.energy([(START + 10, START + 40), (START + 100, START + 110)]).joules == pytest.approx(1200)


@pytest.mark.parametrize(
    ("seconds", "watts", "words"),
    [
        (np.arange(0, 100, 20.0), 30.0, "2 samples .* are within these 50 s"),
        (np.arange(500, 600, 1.0), 30.0, "no sample .* is within"),
        (np.arange(0, 0), 30.0, "no sample"),
        (np.r_[0:20, 40:100], 30.0, "a gap of 21 s in these 50 s"),
        (np.arange(0, 40, 1.0), 30.0, "a gap of 21 s"),
        (np.arange(0, 100, 1.0), 0.0, "says 0 W"),
    ],
    ids=["sparse", "another time", "empty", "hole", "ends early", "another plug"],
)
def test_a_window_that_the_log_does_not_cover_is_null_with_the_reason(
    seconds: np.ndarray, watts: float, words: str
) -> None:
    energy = log(seconds.astype(float), np.full(len(seconds), watts)).energy([(START + 10, START + 60)])
    assert energy.joules is None
    assert re.search(words, energy.reason or "")


LOCAL = datetime.fromtimestamp(START).isoformat(sep=" ")
FORMS = {
    "epoch": f"time,watts\n{START},38.5\n{START + 1},39\n",
    "no head": f"{START:.0f},38.5\n{START + 1:.0f},39\n",
    "milliseconds": f"timestamp,power\n{START * 1e3:.0f},38.5\n{(START + 1) * 1e3:.0f},39\n",
    "iso": "Time;Power (W)\n2025-11-24T16:00:00Z;38,5\n2025-11-24T17:00:01+01:00;39,0 W\n".replace(
        "Power (W)", "Power"
    ),
    "local": f"date\twatts\n{LOCAL}\t38.5\n{datetime.fromtimestamp(START + 1).isoformat()}\t39\n",
    "hub": "entity_id,state,last_changed\n"
    "sensor.plug,38.5,2025-11-24T16:00:00.000Z\nsensor.plug,unavailable,2025-11-24T16:00:00.500Z\n"
    "sensor.plug,39,2025-11-24T16:00:01.000Z\n",
    "out of order, unfinished": f"time,watts\n{START + 1},39\n\n{START},38.5\n{START + 2},4",
    "mark": f"\ufefftime,watts\r\n{START},38.5\r\n{START + 1},39\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_logs_as_plugs_and_hubs_write_them(form: str, tmp_path: Path) -> None:
    path = tmp_path / "plug.csv"
    path.write_bytes(FORMS[form].encode())
    read = read_log(path)
    assert read.times.tolist() == [START, START + 1]
    assert read.watts.tolist() == [38.5, 39.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("time,watts\n1764000000,38\nyesterday,38\n", "line 3 is not a time and watts: 'yesterday,38'"),
        ("time,watts\n1764000000\n", "line 2"),
        ("time,watts\n1764000000,-5\n", "line 2"),
        ("when,volts\n1764000000,230\n", "when, volts.*call them time and watts"),
    ],
)
def test_a_log_that_is_none_is_refused_with_its_line(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "plug.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=f"plug.csv: .*{words}"):
        read_log(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_log(tmp_path / "missing.csv")
