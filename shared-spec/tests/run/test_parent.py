"""Whole runs through the real command line on the fake platform: processes, kills, resuming, errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import (
    PHASES,
    change_record,
    children,
    command,
    fake,
    only_result,
    phase_process,
    quick,
    running,
    start_hanging,
    wait_for,
)

from shared_spec import files as shared_files
from shared_spec.results import format
from shared_spec.run.plan import Planned, estimate, plan
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def test_a_run_leaves_one_valid_result_and_nothing_else(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = quick(spec_file, out)
    assert done.returncode == 0, done.stderr
    result = only_result(out)
    assert format.problems(result) == []
    assert [o["phase"] for o in result["phases"]] == ["ceiling", "training", "latency", "inference"]
    assert result["data"]["source"] == "synthetic"
    assert any("synthetic" in warning for warning in result["warnings"])
    assert "synthetic" in done.stdout
    assert not result["spec"]["standard"]
    assert result["phases"][1]["worker_env"] == {"FAKE_THREADS": "2"}
    assert result["phases"][1]["backend"]["details"]["threads"] == "2"
    for outcome in result["phases"]:
        assert outcome["startup"]["process_seconds"] > 0
        assert outcome["startup"]["backend_seconds"] > 0
        assert outcome["conditions"]["cpu_foreign_share"] >= 0
        assert outcome["seconds"] >= sum(filter(None, outcome["startup"].values()))
    assert "images/s" in done.stdout  # what was found, in a line for each phase
    assert not list((out / ".runs").iterdir())


def test_phases_and_repeats_each_have_a_process_and_seed_of_their_own(spec_file: Path, tmp_path: Path) -> None:
    content = json.loads(spec_file.read_text())
    content["profiles"]["quick"] |= {"repeats": 2, "max_repeats": 2}
    spec_file.write_text(json.dumps(content))
    assert quick(spec_file, tmp_path / "r").returncode == 0
    outcomes = only_result(tmp_path / "r")["phases"]
    assert [(o["phase"], o["repeat"], o["seed"]) for o in outcomes] == [
        ("ceiling", 0, 0), ("training", 0, 0), ("latency", 0, 0), ("inference", 0, 0),
        ("training", 1, 1), ("latency", 1, 1), ("inference", 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "words"),
    [("oom:3", "out of memory: fake memory is full"), ("bug:3", "ValueError: fake bug"), ("kill:3", "SIGKILL")],
)
def test_a_failing_phase_is_reported_and_the_others_stand(
    spec_file: Path, tmp_path: Path, fault: str, words: str
) -> None:
    done = quick(spec_file, tmp_path / "r", FAKE_FAULT=fault)
    assert done.returncode == 1
    result = only_result(tmp_path / "r")
    assert format.problems(result) == []
    by_phase = {o["phase"]: o for o in result["phases"]}
    assert by_phase["training"]["status"] == "failed"
    assert words in by_phase["training"]["reason"]
    assert "/home" not in json.dumps(result)
    assert by_phase["latency"]["status"] == by_phase["inference"]["status"] == "ok"


def test_running_again_redoes_only_what_failed_and_replaces_the_result(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    quick(spec_file, out, FAKE_FAULT="kill:3")
    before = {o["phase"]: o for o in only_result(out)["phases"]}
    done = quick(spec_file, out)
    assert done.returncode == 0, done.stderr
    result = only_result(out)
    after = {o["phase"]: o for o in result["phases"]}
    assert after["training"]["status"] == "ok"
    assert after["latency"] == before["latency"]  # measured once, kept
    assert result["resumed"] == 1


def test_a_run_begun_on_another_machine_is_not_taken_up(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    quick(spec_file, out, FAKE_FAULT="kill:3")
    change_record(out, lambda record: record["environment"].update(cpu_name="Another CPU"))
    files = {path: path.read_bytes() for path in out.rglob("*.json")}
    done = quick(spec_file, out)
    assert done.returncode == 1
    for word in ("run.json", "Another CPU", "--fresh"):
        assert word in done.stderr
    assert files == {path: path.read_bytes() for path in out.rglob("*.json")}
    assert quick(spec_file, out, "--fresh").returncode == 0


def test_a_result_says_that_the_machine_was_restarted_in_between(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    quick(spec_file, out, FAKE_FAULT="kill:3")
    change_record(out, lambda record: record.update(booted=record["booted"] - 1000))
    quick(spec_file, out, FAKE_FAULT="kill:3")
    assert quick(spec_file, out).returncode == 0
    told = [warning for warning in only_result(out)["warnings"] if "restart" in warning]
    assert told == ["taken up again after a restart, or on another machine of the same kind"]
    assert only_result(out)["resumed"] == 2


def test_killing_the_parent_loses_nothing_and_leaves_no_child(spec_file: Path, tmp_path: Path) -> None:
    import psutil

    out = tmp_path / "r"
    parent, child = start_hanging(spec_file, out)
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert not list(out.glob("*.json"))
    (kept,) = out.glob(".runs/*/00-ceiling-0.json")
    ceiling = shared_files.read(kept)
    done = quick(spec_file, out)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 phases" in done.stdout
    result = only_result(out)
    assert result["phases"][0] == json.loads(json.dumps(ceiling), parse_float=lambda text: round(float(text), 9))
    assert result["resumed"] == 1


def test_killing_a_child_fails_its_phase_alone(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    parent, child = start_hanging(spec_file, out)
    os.kill(child, signal.SIGKILL)
    assert parent.wait(timeout=120) == 1
    assert [o["status"] for o in only_result(out)["phases"]] == ["ok", "failed", "ok", "ok"]


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(spec_file: Path, tmp_path: Path) -> None:
    line, environment = command(
        "run", "--spec", spec_file, "--profile", "quick", "--data", "synthetic", "--out", tmp_path / "r",
        "--phases", "training", FAKE_FAULT="hang:2",
    )  # fmt: skip
    process = subprocess.Popen(
        line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background are started deaf to it
    )  # fmt: skip
    wait_for(lambda: list((tmp_path / "r").glob(".runs/*/00-training-0.job")) and children(process.pid))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command goes on" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("words", [(), ("--json-events",)])
def test_ctrl_c_on_a_terminal_reaches_all_processes_and_the_same_command_goes_on(
    spec_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A terminal sends SIGINT to parent and child alike."""
    out = tmp_path / "r"
    line, environment = command(
        "run", "--spec", spec_file, "--profile", "quick", "--data", "synthetic", "--out", out, "--phases", PHASES,
        *words, FAKE_FAULT="hang:3",
    )  # fmt: skip
    process = subprocess.Popen(
        line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: list(out.glob(".runs/*/01-training-0.job")) and phase_process(process.pid))
    child = phase_process(process.pid)
    assert child is not None
    os.killpg(process.pid, signal.SIGINT)
    shown, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error + shown
    assert "same command goes on" in error
    assert not running(child)
    if words:
        assert json.loads(shown.splitlines()[-1])["event"] == "stopped"
    done = quick(spec_file, out)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 phases" in done.stdout


def test_json_events_tell_the_whole_run_and_nothing_else(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    done = quick(spec_file, out, "--json-events", "--power-watts", 42)
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


def test_json_events_tell_errors_too(spec_file: Path, tmp_path: Path) -> None:
    done = quick(spec_file, tmp_path / "r", "--json-events", "--device", "cuda")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "error"
    assert "no such device" in last["text"]
    assert "no such device" in done.stderr


def test_two_runs_of_the_same_kind_do_not_mix(spec_file: Path, tmp_path: Path) -> None:
    parent, _ = start_hanging(spec_file, tmp_path / "r")
    try:
        done = quick(spec_file, tmp_path / "r")
        assert done.returncode == 1
        assert "under way" in done.stderr
    finally:
        parent.kill()
        parent.wait()


def test_fresh_starts_over(spec_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    quick(spec_file, out, FAKE_FAULT="kill:3")
    first = only_result(out)["run_id"]
    assert quick(spec_file, out, "--fresh").returncode == 0
    newest = max(out.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    result = shared_files.read(newest)
    assert result["run_id"] != first
    assert result["resumed"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp8"], "'fp8'"),
        (["--phases", "trainning"], "'trainning' is no phase"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--spec", "missing.json"], "missing.json: cannot be read"),
        (["--device", "cuda"], "no such device"),
    ],
)
def test_bad_requests_get_a_sentence_and_write_nothing(
    spec_file: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = quick(spec_file, tmp_path / "r", *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "r").glob("*.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"batch_size": 0}}, "/training/batch_size"),
        ({"training": {"batch_size": "32"}}, "/training/batch_size"),
        ({"training": {"optimiser": "sgd"}}, "optimiser"),
    ],
)
def test_bad_specs_get_a_sentence(spec_file: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads(spec_file.read_text())
    for section, values in change.items():
        content[section] |= values
    spec_file.write_text(json.dumps(content))
    done = quick(spec_file, tmp_path / "r")
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_predict_writes_logits(spec_file: Path, tiny_spec: Spec, tmp_path: Path) -> None:
    images = np.zeros((7, 32, 32, 3), np.uint8)
    images[3] = 255
    np.save(tmp_path / "x.npy", images)
    params.save(params.initial(tiny_spec), tmp_path / "w.safetensors")
    for weights in ("init", tmp_path / "w.safetensors"):
        done = fake(
            "predict",
            "--spec",
            spec_file,
            "--weights",
            weights,
            "--images",
            tmp_path / "x.npy",
            "--out",
            tmp_path / "y.npy",
        )
        assert done.returncode == 0, done.stderr
        logits = np.load(tmp_path / "y.npy")
        assert logits.dtype == np.float32
        assert logits.shape == (7, 100)
        assert logits[:, 0].tolist() == [0, 0, 0, 3072, 0, 0, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), "float32, expected uint8"),
        (np.zeros((2, 3, 32, 32), np.uint8), "[2, 3, 32, 32]"),
        (np.zeros((0, 32, 32, 3), np.uint8), "N at least 1"),
        (None, "x.npy: cannot be read"),
        (b"\x93NUMPY garbage", "is not a .npy file"),
        (b"", "is not a .npy file"),
    ],
)
def test_predict_names_what_is_wrong_with_images(spec_file: Path, tmp_path: Path, images: Any, message: str) -> None:
    path = tmp_path / "x.npy"
    if isinstance(images, bytes):
        path.write_bytes(images)
    elif images is not None:
        np.save(path, images)
    done = fake("predict", "--spec", spec_file, "--weights", "init", "--images", path, "--out", tmp_path / "y.npy")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "y.npy").exists()


def test_info_tells_what_would_run_without_private_things(spec_file: Path) -> None:
    done = fake("info", "--spec", spec_file)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["backend"]["framework"] == "fake"
    assert facts["backend"]["details"]["threads"] == "2"  # it ran in the platform's environment


def test_repeats_are_added_while_they_differ_too_much(spec_file: Path, tmp_path: Path) -> None:
    content = json.loads(spec_file.read_text())
    content["profiles"]["quick"]["max_repeats"] = 3
    content["measuring"]["interval_tolerance"] = 0.0  # never close enough
    spec_file.write_text(json.dumps(content))
    done = quick(spec_file, tmp_path / "r")
    assert done.returncode == 0, done.stderr
    outcomes = only_result(tmp_path / "r")["phases"]
    assert [o["seed"] for o in outcomes if o["phase"] == "training"] == [0, 1, 2]
    assert [o["seed"] for o in outcomes if o["phase"] == "inference"] == [0]
    assert "One more repeat of training and latency" in done.stdout


def test_max_batch_tries_each_batch_in_its_own_process(spec_file: Path, tmp_path: Path) -> None:
    done = fake(
        "run", "--spec", spec_file, "--data", "synthetic", "--out", tmp_path / "r", "--phases", "max_batch",
        "--max-batch", 24,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (outcome,) = only_result(tmp_path / "r")["phases"]
    assert outcome["measurements"]["batch_size"] == 24
    assert outcome["measurements"]["ended_by"] == "--max-batch 24"
    assert [t["batch_size"] for t in outcome["measurements"]["tries"]] == [4, 8, 16, 24]


def test_a_convergence_run_reports_the_missed_target(spec_file: Path, tmp_path: Path) -> None:
    done = fake("run", "--spec", spec_file, "--data", "synthetic", "--out", tmp_path / "r", "--phases", "convergence")
    assert done.returncode == 0, done.stderr
    (outcome,) = only_result(tmp_path / "r")["phases"]
    measured = outcome["measurements"]
    assert measured["epochs_to_target"] is None
    assert len(measured["epochs"]) == 15
    assert measured["images"] == 15 * 64


def test_weights_of_a_full_training_are_left_beside_the_result(
    spec_file: Path, tiny_spec: Spec, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    asked = ("--spec", spec_file, "--data", "synthetic", "--out", out, "--phases", "convergence", "--keep-weights")
    done = fake("run", *asked)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.safetensors")
    (outcome,) = only_result(out)["phases"]
    assert f"Weights: {path}" in done.stdout
    assert params.fingerprint(params.load(tiny_spec, path)) == outcome["measurements"]["final_params"]


def test_a_convergence_run_killed_again_and_again_ends_as_if_left_alone(spec_file: Path, tmp_path: Path) -> None:
    def converge(out: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return fake("run", "--spec", spec_file, "--data", "synthetic", "--out", out, "--phases", "convergence", **env)

    assert converge(tmp_path / "alone").returncode == 0
    for step in (20, 100, 200):
        assert converge(tmp_path / "killed", FAKE_FAULT=f"kill:{step}").returncode == 1
    assert converge(tmp_path / "killed").returncode == 0
    alone, killed = (only_result(tmp_path / name)["phases"][0]["measurements"] for name in ("alone", "killed"))
    assert killed["resumed"] == 3
    assert killed["loss_trace"] == alone["loss_trace"]
    assert killed["final_params"] == alone["final_params"]


def test_a_convergence_run_killed_at_ten_random_moments_ends_as_if_left_alone(spec_file: Path, tmp_path: Path) -> None:
    """SIGKILL from outside, to the parent and to the phase process in turns, wherever they happen to be."""
    content = json.loads(spec_file.read_text())
    content["profiles"]["full"]["checkpoint_seconds"] = 0.02
    spec_file.write_text(json.dumps(content))
    random = np.random.default_rng(0)

    def words(out: Path) -> tuple[object, ...]:
        return ("run", "--spec", spec_file, "--data", "synthetic", "--out", out, "--phases", "convergence")

    assert fake(*words(tmp_path / "alone")).returncode == 0
    for turn in range(10):
        line, environment = command(*words(tmp_path / "killed"), FAKE_STEP_SECONDS="0.02")
        parent = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda parent=parent: phase_process(parent.pid))
        child = phase_process(parent.pid)
        assert child is not None
        time.sleep(random.uniform(0.0, 1.0))
        os.kill(parent.pid if turn % 2 else child, signal.SIGKILL)
        parent.wait(timeout=60)
        wait_for(lambda child=child: not running(child))
    done = fake(*words(tmp_path / "killed"))
    assert done.returncode == 0, done.stderr
    newest = max((tmp_path / "killed").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    killed = shared_files.read(newest)["phases"][0]["measurements"]
    alone = only_result(tmp_path / "alone")["phases"][0]["measurements"]
    assert 3 <= killed["resumed"] <= 10  # a process that is killed before it has begun has taken nothing up
    assert killed["final_params"] == alone["final_params"]
    assert killed["loss_trace"] == alone["loss_trace"]
    assert [row["top1"] for row in killed["epochs"]] == [row["top1"] for row in alone["epochs"]]


def max_batch_outcome(done: subprocess.CompletedProcess[str], out: Path) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (outcome,) = only_result(out)["phases"]
    measured: dict[str, Any] = outcome["measurements"]
    fits = [tried["batch_size"] for tried in measured["tries"] if tried["outcome"] == "fits"]
    assert measured["batch_size"] == max(fits)
    return measured


def max_batch_words(spec_file: Path, out: Path) -> tuple[object, ...]:
    return ("run", "--spec", spec_file, "--data", "synthetic", "--out", out, "--phases", "max_batch")


def test_max_batch_inside_a_limit_of_the_system(spec_file: Path, tmp_path: Path) -> None:
    """RLIMIT_DATA: the allocation itself fails, and the search finds the batch below."""
    if sys.platform != "linux":
        pytest.skip("NOT TESTED: only Linux holds processes to RLIMIT_DATA")
    import resource

    limit = 1 << 30
    line, environment = command(*max_batch_words(spec_file, tmp_path / "r"), FAKE_MEMORY=f"{24 << 20}:0")
    done = subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    measured = max_batch_outcome(done, tmp_path / "r")
    refused = [tried for tried in measured["tries"] if tried["outcome"] == "out of memory"]
    assert refused
    assert all(tried["reason"].startswith("out of memory: Unable to allocate") for tried in refused)
    assert measured["batch_size"] < min(tried["batch_size"] for tried in refused) <= limit // (24 << 20)
    assert "out of memory" in measured["ended_by"]


def test_max_batch_stops_a_try_that_takes_more_than_its_share(spec_file: Path, tmp_path: Path) -> None:
    """Memory that grows faster than the tries before it promised: the parent kills the try, and reports it."""
    import psutil

    allowed = 600 << 20
    share = allowed / psutil.virtual_memory().total
    done = fake(
        *max_batch_words(spec_file, tmp_path / "r"), "--memory-share", f"{share:.6f}",
        FAKE_MEMORY=f"{64 << 20}:16", FAKE_STEP_SECONDS="0.3",
    )  # fmt: skip
    measured = max_batch_outcome(done, tmp_path / "r")
    assert [tried["batch_size"] for tried in measured["tries"]][:3] == [4, 8, 16]
    killed = measured["tries"][2]
    assert killed["outcome"] == "out of memory"
    assert "more memory than the share" in killed["reason"]
    assert 8 <= measured["batch_size"] < 16


def test_max_batch_survives_the_systems_out_of_memory_killer(spec_file: Path, tmp_path: Path) -> None:
    """A control group with 600 MiB and no swap, by systemd: the kernel kills the try, not the run."""
    scope = ["systemd-run", "--user", "--scope", "--quiet", "-p", "MemoryMax=600M", "-p", "MemorySwapMax=0"]
    try:
        subprocess.run([*scope, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("NOT TESTED WITH THE KERNEL'S OUT-OF-MEMORY KILLER: no systemd here that gives a control group")
    line, environment = command(
        *max_batch_words(spec_file, tmp_path / "r"), "--memory-share", 1, FAKE_MEMORY=f"{64 << 20}:16"
    )
    done = subprocess.run([*scope, *line], env=environment, capture_output=True, text=True, timeout=120)
    measured = max_batch_outcome(done, tmp_path / "r")
    reasons = [tried["reason"] for tried in measured["tries"] if tried["outcome"] == "out of memory"]
    assert "killed by the system's out-of-memory killer" in reasons


def test_plan_interleaves_repeats(tiny_spec: Spec) -> None:
    profile = tiny_spec.profiles.full.changed(repeats=2)
    titles = [planned.title for planned in plan(profile, ("conformance", "training", "latency"))]
    assert titles == ["conformance", "training 1", "latency 1", "training 2", "latency 2"]
    assert Planned("training", 1, 3).stem == "03-training-1"


def test_estimates_grow_with_slower_devices(tiny_spec: Spec) -> None:
    from shared_spec.workload.spec import load_spec

    spec = load_spec()
    for phase in ("conformance", "training", "inference"):
        fast, slow = (estimate(phase, spec, spec.profiles.quick, rate) for rate in (1e14, 1e11))
        assert fast < slow


@pytest.mark.parametrize(
    ("phase", "programs"),
    [("conformance", 2), ("training", 1), ("latency", 0.25), ("inference", 7 * 0.25), ("ceiling", 0)],
)
def test_estimates_hold_what_the_framework_compiles(tiny_spec: Spec, phase: str, programs: float) -> None:
    quick = tiny_spec.profiles.quick.changed(inference_max_batch=64)
    without, with_it = (estimate(phase, tiny_spec, quick, 1e12, seconds) for seconds in (0.0, 40.0))
    assert with_it - without == pytest.approx(40.0 * programs)
