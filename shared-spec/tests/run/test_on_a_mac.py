"""Whole runs of the fake platform on a machine that believes to be a Mac mini with an M4 and 16 GB."""

import os
import sys
from pathlib import Path

import psutil
import pytest
from fake_mac import SystemLibrary
from fake_runs import asked, here, only_result
from fake_system import System, m4_mini

from shared_spec.machine import memory
from shared_spec.results import format

GIB = 2**30
EACH = int(1.5 * GIB)
"""What a batch takes of Metal's buffers, by the image: 6 GiB for the smallest batch of the tiny spec, 4."""


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """The machine; this process, as the parent of runs, is on it too."""
    system = System(tmp_path / "m", monkeypatch)
    m4_mini(system)
    monkeypatch.setattr(memory, "system_library", SystemLibrary)
    folder = tmp_path / "buffers"
    folder.mkdir()
    monkeypatch.setenv("FAKE_MAC", str(folder))
    return system


def test_a_run_on_an_m4_mini_goes_from_the_plan_to_the_result(mac: System, spec_file: Path, tmp_path: Path) -> None:
    names = "ceiling,training,latency,inference,max_batch"
    done = here(
        *asked(spec_file, tmp_path / "r", names), "--device", "gpu", "--max-batch", 64, FAKE_MAC_METAL=f"{EACH}:0"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    order = [
        "Kept awake until the run ends (caffeinate)", "the machine was set to save power", "estimate",
        "Not measured here: energy and power: the meter of Apple Silicon is not installed", "ceiling: ok",
        "max_batch: ok", "Result: ",
    ]  # fmt: skip
    assert [said.index(words) for words in order] == sorted(said.index(words) for words in order)
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    environment = result["environment"]
    assert (environment["system"], environment["mac_model"], environment["gpu_cores"]) == ("Darwin", "Mac16,10", 10)
    assert result["cpu_threads"] is None
    training, largest = (
        next(outcome["measurements"] for outcome in result["phases"] if outcome["phase"] == name)
        for name in ("training", "max_batch")
    )
    assert training["memory"]["footprint_peak"] > 4 * EACH > 2 * training["memory"]["host_peak"]
    assert training["energy"]["joules"] is None
    # 0.9 times what is free are 8.1 GiB: 5 images fit in it, and 6, with 9.1, are never tried.
    assert [(tried["batch_size"], tried["outcome"]) for tried in largest["tries"]] == [(4, "fits"), (5, "fits")]
    assert largest["batch_size"] == 5
    assert largest["ended_by"].endswith("of the 8.1 GiB allowed")


def test_a_try_whose_footprint_grows_past_its_share_is_stopped_though_its_resident_set_is_small(
    mac: System, spec_file: Path, tmp_path: Path
) -> None:
    words = (*asked(spec_file, tmp_path / "r", "max_batch"), "--device", "gpu", "--max-batch", 8)
    done = here(*words, FAKE_MAC_METAL=f"{EACH}:7", FAKE_STEP_SECONDS="0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = only_result(tmp_path / "r")["phases"]
    tries = {tried["batch_size"]: tried for tried in outcome["measurements"]["tries"]}
    assert [(size, tried["outcome"]) for size, tried in tries.items()] == [
        (4, "fits"), (8, "out of memory"), (7, "out of memory"), (6, "fits"),
    ]  # fmt: skip
    assert "more memory than the share" in tries[8]["reason"]


def test_what_a_process_takes_is_its_footprint_on_a_mac_and_its_resident_set_elsewhere(
    mac: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, mine = psutil.Process(), Path(os.environ["FAKE_MAC"]) / f"fake-mac-buffers-{os.getpid()}"
    mine.write_text(str(5 * GIB))
    assert memory.taken_bytes(me) > 5 * GIB
    assert (memory.footprint_peak_bytes() or 0) > 5 * GIB
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory.taken_bytes(me) < 5 * GIB
    assert memory.footprint_peak_bytes() is None


def test_a_footprint_that_macos_does_not_tell_leaves_the_resident_set(
    mac: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemLibrary, "proc_pid_rusage", lambda self, pid, flavour, words: -1)
    assert memory.taken_bytes(psutil.Process()) > 0
    assert memory.footprint_peak_bytes() is None
