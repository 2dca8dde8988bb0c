"""What a result must not tell of the machine and its user."""

import getpass
import socket

import pytest

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
