"""A plug's log in place of the meters: of each window its own joules, of each epoch what lies before its end."""

import copy
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import only_result, quick

from shared_spec import files
from shared_spec.errors import UserError
from shared_spec.machine.energy.wall import PlugLog
from shared_spec.results import format
from shared_spec.results.upgrade import upgrade
from shared_spec.run import plug

START = 1_764_000_000.0
RESULTS = Path(__file__).parents[3] / "results"
NULL = {"joules": None, "reason": "later", "source": "none", "scope": "nothing", "samples": 0}


def log(until: float = 4000.0, watts: float = 30.0) -> PlugLog:
    seconds = np.arange(0, until, 5.0)
    return PlugLog(START + seconds, np.full(len(seconds), watts))


def span(start: float, end: float) -> list[float]:
    return [START + start, START + end]


def test_the_idle_and_the_working_window_have_their_own_joules() -> None:
    measured = {
        "idle_before": {**NULL, "seconds": 5.0, "windows": [span(0, 5)]},
        "idle": {**NULL, "seconds": 30.0, "windows": [span(10, 40)]},
        "energy": {**NULL, "windows": [span(100, 200)]},
        "batch_size": 32,
    }
    done = plug.metered({"phase": "training", "measurements": measured}, log())
    now = done["measurements"]
    assert (now["idle"]["joules"], now["idle"]["seconds"]) == (pytest.approx(900), 30.0)
    assert (now["energy"]["joules"], now["energy"]["source"]) == (pytest.approx(3000), "wall-meter")
    assert (now["energy"]["reason"], now["batch_size"]) == (None, 32)
    assert measured["energy"]["joules"] is None


def full(*ended: float) -> dict[str, Any]:
    epochs = [{"epoch": i, "ended": START + end, "joules": None} for i, end in enumerate(ended, 1)]
    energy = {**NULL, "windows": [span(0, 1000), span(2000, ended[-1])]}  # taken up again after 1000 s
    return {"phase": "convergence", "measurements": {"energy": energy, "evaluations": epochs}}


def test_an_epoch_has_what_lies_before_its_end_and_the_pause_counts_nothing() -> None:
    now = plug.metered(full(600, 2500, 3000), log())["measurements"]
    assert [epoch["joules"] for epoch in now["evaluations"]] == pytest.approx([18e3, 45e3, 60e3])
    assert now["energy"]["joules"] == now["evaluations"][-1]["joules"]
    assert now["energy"]["windows"] == full(3000)["measurements"]["energy"]["windows"]


def test_a_log_that_ends_early_keeps_the_epochs_before() -> None:
    now = plug.metered(full(600, 2500, 3000), log(until=1500))["measurements"]
    assert [epoch["joules"] for epoch in now["evaluations"]] == [pytest.approx(18e3), None, None]
    assert "a gap of" in now["energy"]["reason"]


def test_what_has_no_energy_or_no_dated_window_is_not_touched_or_says_so() -> None:
    failed = {"phase": "training", "measurements": None}
    latency = {"phase": "latency", "measurements": {"steady": True}}
    assert plug.metered(failed, log()) is failed
    assert plug.metered(latency, log()) is latency
    undated = {"measurements": {"idle": dict(NULL), "energy": dict(NULL)}}
    assert "nobody noted" in plug.metered(undated, log())["measurements"]["energy"]["reason"]


def test_at_the_end_of_a_run_a_log_that_cannot_be_read_costs_the_energy_alone(tmp_path: Path) -> None:
    outcomes = {"training 1": plug.metered(full(600), log(0))}
    assert plug.at_the_end(outcomes, None) == plug.at_the_end(outcomes, "42") == (outcomes, [])
    kept, warnings = plug.at_the_end(outcomes, str(tmp_path / "gone.csv"))
    assert kept == outcomes
    assert "gone.csv: cannot be read" in warnings[0]


def csv(path: Path, start: float = 0.0) -> Path:
    rows = (f"{START + start + second},55.5" for second in range(0, 4000, 5))
    path.write_text("time,watts\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def dated() -> dict[str, Any]:
    """A committed result whose windows are dated, as those of this version are."""
    source = sorted(RESULTS.glob("torch-ipex-*.json*"))[0]
    data = source.read_bytes()
    content = upgrade(json.loads(gzip.decompress(data) if source.suffix == ".gz" else data))
    at = 100.0
    for outcome in content["phases"]:
        measured = outcome["measurements"] or {}
        if "idle" in measured:
            window = sum(seconds for _, seconds in measured["window_blocks"])
            measured["idle"]["windows"], measured["energy"]["windows"] = (
                [span(at, at + 30)],
                [span(at + 50, at + 50 + window)],
            )
            at += 100 + window
    return format.parse(content).to_dict()


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_log_that_is_exported_later_goes_into_the_result(suffix: str, dated: dict[str, Any], tmp_path: Path) -> None:
    result = tmp_path / f"result{suffix}"
    files.write(result, dated)
    before = result.read_bytes()
    said = plug.put_in(result, csv(tmp_path / "plug.csv"))
    assert "windows are by the plug's log now" in said
    assert (tmp_path / f"result{suffix}.bak").read_bytes() == before
    after = format.parse(files.read(result))
    energies = [o.measurements.energy for o in after.phases if o.phase == "training" and o.measurements]  # type: ignore[union-attr]
    assert energies
    assert {energy.source for energy in energies} == {"wall-meter"}
    plug.put_in(result, csv(tmp_path / "plug.csv"))
    assert (tmp_path / f"result{suffix}.bak").read_bytes() == before


def test_a_log_of_another_day_changes_nothing(dated: dict[str, Any], tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    files.write(result, dated)
    before = result.read_bytes()
    with pytest.raises(UserError, match=r"covers no window of .*no sample of the plug's log"):
        plug.put_in(result, csv(tmp_path / "plug.csv", start=1e6))
    broken = copy.deepcopy(dated)
    broken["phases"] = [{}]
    files.write(tmp_path / "broken.json", broken)
    with pytest.raises(UserError, match=r"broken.json: /phases/0"):
        plug.put_in(tmp_path / "broken.json", csv(tmp_path / "plug.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "plug.csv", "result.json"]
    assert result.read_bytes() == before


def test_a_whole_run_takes_its_energy_from_the_log(spec_file: Path, tmp_path: Path) -> None:
    now = time.time()
    path = tmp_path / "plug.csv"
    path.write_text("time,watts\n" + "".join(f"{now + tick / 1000:.3f},50\n" for tick in range(60_000)))
    done = quick(spec_file, tmp_path / "out", "--power-watts", path, phases="training")
    assert done.returncode == 0, done.stderr
    measured = only_result(tmp_path / "out")["phases"][0]["measurements"]
    assert {measured[name]["source"] for name in ("idle", "energy")} == {"wall-meter"}
    for name, seconds in (
        ("idle", measured["idle"]["seconds"]),
        ("energy", sum(s for _, s in measured["window_blocks"])),
    ):
        assert measured[name]["joules"] == pytest.approx(50 * seconds, rel=0.2, abs=0.3)
