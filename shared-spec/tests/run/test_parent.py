"""Whole runs on the fake platform: what they leave, what they say, and how they go on."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import PHASES, asked, change_record, fake, here, only_result, quick

from shared_spec.results import format
from shared_spec.run import plan
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def test_a_run_leaves_one_valid_result_and_nothing_else(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = fake(*asked(spec_file, out, PHASES))
    assert done.returncode == 0, done.stderr
    result = only_result(out)
    assert format.problems(result) == []
    assert [o["phase"] for o in result["phases"]] == ["ceiling", "training", "latency", "inference"]
    assert result["data"]["source"] == "synthetic"
    assert any("synthetic" in warning for warning in result["warnings"])
    assert "synthetic" in done.stdout
    assert not result["spec"]["standard"]
    assert result["phases"][1]["worker_env"] == {"FAKE_THREADS": "2"}
    assert result["phases"][2]["worker_env"] == {"FAKE_THREADS": "2", "FAKE_GRAPHS": "0"}
    assert result["phases"][1]["backend"]["details"]["threads"] == "2"
    for outcome in result["phases"]:
        assert outcome["startup"]["process_seconds"] > 0
        assert outcome["startup"]["backend_seconds"] > 0
        assert outcome["conditions"]["cpu_foreign_share"] >= 0
        assert outcome["seconds"] >= sum(filter(None, outcome["startup"].values()))
    assert "images/s" in done.stdout  # what was measured, in a line for each phase
    assert [path.name for path in (out / ".runs").iterdir()] == ["salt"]


def test_each_repeat_has_a_process_and_seed_of_its_own_and_more_are_added_while_they_differ(
    spec_file: Path, tmp_path: Path
) -> None:
    content = json.loads(spec_file.read_text())
    content["profiles"]["quick"] |= {"repeats": 2, "max_repeats": 3, "inference_repeats": 2}
    content["measuring"]["interval_tolerance"] = 0.0  # never close enough
    spec_file.write_text(json.dumps(content))
    done = quick(spec_file, tmp_path / "r")
    assert done.returncode == 0, done.stderr
    outcomes = only_result(tmp_path / "r")["phases"]
    assert [(o["phase"], o["repeat"], o["seed"]) for o in outcomes] == [
        ("ceiling", 0, 0), ("training", 0, 0), ("latency", 0, 0), ("inference", 0, 0),
        ("training", 1, 1), ("latency", 1, 1), ("inference", 1, 1), ("training", 2, 2), ("latency", 2, 2),
    ]  # fmt: skip
    assert "One more repeat of training and latency" in done.stdout
    wide = only_result(tmp_path / "r")["wide_intervals"]
    assert wide.keys() == {"training", "latency"}
    assert all(f"{name}: the repeats ended with a 95 % interval of their mean" in done.stdout for name in wide)


@pytest.mark.parametrize(
    ("fault", "words"), [("oom:3", "out of memory: fake memory is full"), ("bug:3", "ValueError: fake bug")]
)
def test_a_failing_phase_is_reported_and_the_others_stand(
    spec_file: Path, tmp_path: Path, fault: str, words: str
) -> None:
    done = quick(spec_file, tmp_path / "r", phases="training,latency", FAKE_FAULT=fault)
    assert done.returncode == 1
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    training, latency = result["phases"]
    assert training["status"] == "failed"
    assert words in training["reason"]
    assert "/home" not in json.dumps(result)
    assert latency["status"] == "ok"


def test_running_again_redoes_only_what_failed_and_replaces_the_result(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    failed = quick(spec_file, out, phases="training,latency", FAKE_FAULT="kill:3")
    assert failed.returncode == 1
    before = only_result(out)
    assert format.problems(before) == []
    assert "SIGKILL" in before["phases"][0]["reason"]
    change_record(out, lambda record: record.update(booted=record["booted"] - 1000))
    done = quick(spec_file, out, phases="training,latency")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 phases" in done.stdout
    result = only_result(out)
    assert result["phases"][0]["status"] == "ok"
    training = result["phases"][0]["measurements"]
    assert (training["idle_before"] is None) == (training["idle"]["source"] == "none")  # nothing is waited for in vain
    assert result["phases"][1] == before["phases"][1]  # measured once, kept
    assert (result["run_id"], result["resumed"]) == (before["run_id"], 1)
    restarts = [warning for warning in result["warnings"] if "restart" in warning]
    assert restarts == ["taken up again after a restart, or on another machine of the same kind"]


def test_json_events_tell_the_whole_run_and_nothing_else(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    done = quick(spec_file, out, "--json-events", "--power-watts", "idle=6.5,load=42")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("plan") == 1
    assert [e["phase"] for e in events if e["event"] == "phase_start"] == [
        "ceiling", "training 1", "latency 1", "inference 1",
    ]  # fmt: skip
    assert all(e["status"] == "ok" and e["verdict"] for e in events if e["event"] == "phase_end")
    assert any("synthetic" in e["text"] for e in events if e["event"] == "warning")
    assert min(e["done"] for e in events if e["event"] == "progress") >= 0
    assert kinds[-1] == "result"
    assert Path(events[-1]["path"]).exists()
    training = next(o["measurements"] for o in only_result(out)["phases"] if o["phase"] == "training")
    for idle in (training["idle_before"], training["idle"]):  # before the framework, and with the model built
        assert idle["joules"] >= 6.5 * idle["seconds"] * 0.999  # a busy machine sleeps longer than it is asked to
        assert "idle power" in idle["scope"]


def test_json_events_tell_errors_too(spec_file: Path, tmp_path: Path) -> None:
    done = quick(spec_file, tmp_path / "r", "--json-events", "--device", "cuda")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "error"
    assert "no such device" in last["text"]
    assert "no such device" in done.stderr
    assert not list((tmp_path / "r").glob("*.json"))


def test_a_full_training_reports_the_missed_target(trained: tuple[Path, str]) -> None:
    (outcome,) = only_result(trained[0])["phases"]
    measured: dict[str, Any] = outcome["measurements"]
    assert measured["epochs_to_target"] is None
    assert len(measured["evaluations"]) == 15
    assert measured["images"] == 15 * 64


def test_weights_of_a_full_training_are_left_beside_the_result(trained: tuple[Path, str], tiny_spec: Spec) -> None:
    out, said = trained
    (path,) = out.glob("*.safetensors")
    (outcome,) = only_result(out)["phases"]
    assert f"Weights: {path}" in said
    assert params.fingerprint(params.load(tiny_spec, path)) == outcome["measurements"]["final_params"]


def test_a_full_training_killed_again_and_again_ends_as_if_left_alone(
    spec_file: Path, tmp_path: Path, trained: tuple[Path, str]
) -> None:
    words = asked(spec_file, tmp_path / "killed", "convergence", "full")
    for step in (20, 40):  # slow enough for the thread to have written the checkpoint of an epoch's end
        assert here(*words, FAKE_FAULT=f"kill:{step}", FAKE_STEP_SECONDS="0.03").returncode == 1
    assert here(*words).returncode == 0
    alone, killed = (only_result(out)["phases"][0]["measurements"] for out in (trained[0], tmp_path / "killed"))
    assert killed["resumed"] == 2
    assert killed["loss_trace"] == alone["loss_trace"]
    assert killed["final_params"] == alone["final_params"]


def test_what_is_left_is_said_anew_where_the_ceiling_corrects_it(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "guessed_flops", lambda device, precision: 1e3)
    said = quick(spec_file, tmp_path / "r", phases="ceiling,training").stdout
    assert (
        said.index("ceiling: ok") < said.index("By this rate the rest takes about 13 s.") < said.index("training 1: ok")
    )
    monkeypatch.undo()
    assert "By this rate" not in quick(spec_file, tmp_path / "r2", phases="ceiling,training").stdout
