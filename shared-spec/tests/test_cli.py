"""The command line: what it takes, what it refuses in a sentence, and the commands beside `run`."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from fake_platform.backend import PLATFORM
from fake_runs import fake, here, quick

from shared_spec.results.format import Result
from shared_spec.run import parent, phases
from shared_spec.run.request import Request
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def requested(*words: object) -> Request:
    """The request that a command line makes."""
    requests: list[Request] = []

    def execute(request: Request, *others: object) -> tuple[Path, Result]:
        requests.append(request)
        return Path("result.json"), Result.model_construct(phases=())

    with patch.object(parent, "execute", execute):
        done = here("run", *words)
    assert done.returncode == 0, done.stderr
    return requests[0]


def test_options_of_run_reach_the_request(spec_file: Path, tiny_spec: Spec) -> None:
    request = requested(
        "--spec", spec_file, "--profile", "quick", "--device", "cuda", "--precision", "bf16", "--data", "synthetic",
        "--phases", "training, ceiling", "--out", "elsewhere", "--fresh", "--keep-weights", "--stop", "target",
        "--power-watts", 42, "--max-batch", 64, "--memory-share", 0.5, "--nproc", 2, "--scaling", "weak",
        "--rank-timeout", 9, "--time-limit", 3, "--threads", 3, "--cores", "all", "--emulated", "--seeds", 2,
    )  # fmt: skip
    setting = request.setting
    assert {field.name: getattr(setting, field.name) for field in fields(setting)} == {
        "spec": tiny_spec, "profile_name": "quick", "device": "cuda", "engine": "fake", "precision": "bf16",
        "stop": "target", "power_watts": "42", "ranks": 2, "rank_timeout": 9.0, "threads": 3, "cores": "all",
        "seeds": 2,
    }  # fmt: skip
    assert {field.name: getattr(request, field.name) for field in fields(request)} == {
        "platform": PLATFORM, "setting": setting, "phases": (phases.CEILING, phases.TRAINING), "out": Path("elsewhere"),
        "data": "synthetic", "fresh": True, "largest_batch": 64, "memory_share": 0.5, "keep_weights": True,
        "scaling": "weak", "time_limit": 3.0, "emulated": True,
    }  # fmt: skip


def test_what_a_wall_meter_shows_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    plug = tmp_path / "plug.csv"
    plug.write_text("time,watts\n1764000000,38.5\n")
    assert requested("--power-watts", plug).setting.power_watts == str(plug)
    assert requested("--power-watts", "idle=6.5,load=38").setting.power_watts == "idle=6.5,load=38"
    for wrong, words in (("missing.csv", "missing.csv: cannot be read"), ("idle=6", "load is missing")):
        done = here("run", "--power-watts", wrong)
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    done = here("power", tmp_path / "missing.json", plug)
    assert (done.returncode, "missing.json: cannot be read" in done.stderr) == (1, True)


def test_options_that_are_left_out(standard_spec: Spec) -> None:
    request, setting = requested(), requested().setting
    assert request.phases == phases.PHASES
    assert (request.data, request.out, request.fresh, request.keep_weights) == (None, Path("results"), False, False)
    assert (request.largest_batch, request.memory_share, request.scaling) == (65536, 0.7, "strong")
    assert request.time_limit == 10.0
    assert (setting.spec, setting.profile_name, setting.device) == (standard_spec, "full", "cpu")
    assert (setting.precision, setting.stop, setting.power_watts) == ("fp32", "epochs", None)
    assert (setting.ranks, setting.rank_timeout) == (1, 300.0)
    assert (setting.threads, setting.cores, setting.seeds, request.emulated) == (None, "performance", None, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp8"], "'fp8'"),
        (["--phases", "trainning"], "'trainning' is no phase"),
        (["--phases", " ,"], "name at least one of"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--spec", "missing.json"], "missing.json: cannot be read"),
        (["--device", "cuda"], "no such device"),
        (["--seeds", "9"], "--seeds 9: the spec names 8"),
        (["--close"], "there is no unfinished run of this kind"),
        (["--nproc", "3"], "--nproc: 3 ranks cannot share the global batch of 4 evenly"),
        (["--nproc", "2", "--phases", "latency,max_batch"], "several ranks share only"),
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


def test_a_bad_request_is_a_sentence_from_a_process_too(spec_file: Path, tmp_path: Path) -> None:
    done = fake("run", "--spec", spec_file, "--data", "/nowhere/at/all", "--out", tmp_path / "r")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --data: /nowhere/at/all does not exist")
    assert "Traceback" not in done.stderr


def test_predict_writes_logits(spec_file: Path, tiny_spec: Spec, tmp_path: Path) -> None:
    images = np.zeros((7, 32, 32, 3), np.uint8)
    images[3] = 255
    np.save(tmp_path / "x.npy", images)
    params.save(params.initial(tiny_spec), tmp_path / "w.safetensors")
    for weights in ("init", tmp_path / "w.safetensors"):
        done = here(
            "predict", "--spec", spec_file, "--weights", weights, "--images", tmp_path / "x.npy",
            "--out", tmp_path / "y.npy",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        logits = np.load(tmp_path / "y.npy")
        assert logits.dtype == np.float32
        assert logits.shape == (7, 100)
        assert logits[:, 0].tolist() == [0, 0, 0, 3072, 0, 0, 0]
        os.unlink(tmp_path / "y.npy")


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
    done = here("predict", "--spec", spec_file, "--weights", "init", "--images", path, "--out", tmp_path / "y.npy")
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
