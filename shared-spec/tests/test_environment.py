"""What a result may say of a machine, and what it must not."""

import getpass
import socket

import pytest

from shared_spec import environment


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", "libopenblas.so.0"),
        ("--xla_gpu_cuda_data_dir=/opt/cuda/12 --other=1", "--xla_gpu_cuda_data_dir=12 --other=1"),
        ("ValueError in /home/ada/x y/file.py", "ValueError in x y/file.py"),
        ("~/private/place", "place"),
        ("run `sudo chmod -R a+r /sys/class/powercap`", "run `sudo chmod -R a+r /sys/class/powercap`"),
        ("1.5 images/s on n/a, GB/s", "1.5 images/s on n/a, GB/s"),
        ("https://pytorch.org/docs/stable", "https://pytorch.org/docs/stable"),
    ],
)
def test_paths_lose_their_folders(text: str, clean: str) -> None:
    assert environment.scrub(text) == clean


def test_host_and_user_are_hidden_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "adas-macbook")
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    value = {"a": ["run by lovelace on adas-macbook", 3, None], "b": {"c": "Lovelace is a surname"}}
    assert environment.scrub(value) == {
        "a": ["run by (hidden) on (hidden)", 3, None],
        "b": {"c": "Lovelace is a surname"},
    }


def test_collected_facts_fit_the_schema_and_name_nobody() -> None:
    facts = {**environment.collect(), **environment.state("cpu"), **environment.state("cuda")}
    assert "gpu_temperature_celsius" in facts  # null without a GPU, never missing
    assert facts["cpu_logical_cores"] >= 1
    assert facts["memory_bytes"] > 0
    assert socket.gethostname() not in str(environment.scrub(facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load_average_1min": 7.0}, "busy"),
        ({"on_ac_power": False}, "battery"),
        ({"rosetta": True}, "Rosetta"),
        ({"gpu_foreign_processes": 2}, "2 other processes"),
    ],
)
def test_warnings(change: dict[str, object], words: str) -> None:
    calm = {"cpu_logical_cores": 2, "load_average_1min": 0.1, "on_ac_power": None, "rosetta": None}
    assert environment.warnings(calm) == []
    (warning,) = environment.warnings({**calm, **change})
    assert words in warning


@pytest.mark.parametrize(("physical", "allowed", "usable"), [(16, {0, 1, 2}, 3), (2, {0, 1, 2, 3}, 2), (None, {0}, 1)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: set[int], usable: int) -> None:
    monkeypatch.setattr(environment.psutil, "cpu_count", lambda logical=True: 64 if logical else physical)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert environment.usable_cores() == usable


def test_git_state_outside_a_checkout(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert environment.git_state(tmp_path) == (None, None)
