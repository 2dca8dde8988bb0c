"""What a result must not tell of the machine and its user."""

import getpass
import socket

import pytest
from results.test_format import EXAMPLE

from shared_spec.results.privacy import scrub


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
    assert scrub(text) == clean


def test_host_and_user_are_hidden_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "adas-macbook")
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    value = {"a": ["run by lovelace on adas-macbook", 3, None], "b": {"c": "Lovelace is a surname"}}
    assert scrub(value) == {
        "a": ["run by (hidden) on (hidden)", 3, None],
        "b": {"c": "Lovelace is a surname"},
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("LD_PRELOAD=/opt/a.so:/home/ada/lib/b.so", "LD_PRELOAD=a.so:b.so"),
        ("cannot open /home/ada", "cannot open ~"),
        ("in /Users/ada: no space", "in ~: no space"),
        ("see file:///home/ada/x.html", "see x.html"),
        ("caf\udce9.npy", "caf\\udce9.npy"),
    ],
)
def test_no_path_leads_home(text: str, clean: str) -> None:
    assert scrub(text) == clean


OURS = (
    "wall",
    "apple",
    "torch",
    "norm",
    "head",
    "fits",
    "batch",
    "quick",
    "keras",
    "cuda",
    "Linux",
    "docker",
    "latency",
)


@pytest.mark.parametrize("name", OURS)
def test_a_name_that_is_our_own_word_changes_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example has every phase and every kind of text that a result has."""
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    monkeypatch.setattr(getpass, "getuser", lambda: name)
    clean = scrub(EXAMPLE)
    assert clean == EXAMPLE
    words = f"head.weight, wall-meter and apple: {name} fits; Fit or Not fit"
    assert scrub(words) == words
    for text in (f"ssh {name}@{name}.local", f"http://{name}:80/x", f"by user {name}"):
        assert "(hidden)" in scrub(text)
        assert name not in scrub(text).replace("(hidden)", "")


def test_another_name_is_hidden_as_a_whole_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "turing.example.org")
    monkeypatch.setattr(getpass, "getuser", lambda: "hopperson")
    assert (
        scrub("turing-2 and turing.example.org, xhopperson, hopperson's")
        == "(hidden)-2 and (hidden), xhopperson, (hidden)'s"
    )
