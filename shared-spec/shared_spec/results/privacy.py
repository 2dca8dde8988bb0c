"""What a result must not tell: where files lie on the machine that was measured, and what it and its user are called.

A user may be called "wall" and a host "head". A name that is a word of this project (of its own texts, of a framework,
of anything installed) tells nobody who it was, and hiding it would turn our own words into others: it is hidden only
where its surroundings say that it is a name.
"""

import contextlib
import getpass
import importlib.metadata
import os
import platform
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PATH = re.compile(r"(?<![\w./])(?!//)(?!/(?:sys|dev)/)(?:~|/)[\w.+@~-]*(?:/[\w.+@~-]+)+")
"""An absolute path of two names or more; /sys and /dev are alike everywhere and name nobody."""
HOMES = re.compile(r"(?<![\w./])/(?:home|Users|var/home|usr/home|export/home)/[\w.+@-]+(?![\w.+@/-])")
"""The folder of a user itself, whose last name is the user's."""
HIDDEN = "(hidden)"
GENERIC = ("root", "user", "localhost")
"""Names that many have: they tell nothing and would mangle ordinary words."""
PACKAGE = Path(__file__).parents[1]


def scrub(value: Any) -> Any:
    r"""`value` with folders cut off paths and host and user names replaced, in every string within; keys stay.

    What UTF-8 cannot hold, as in the name of a file of another age, comes out as \udcXX.
    """
    if isinstance(value, str):
        return _scrubbed(value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, Mapping):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    return value


def _scrubbed(text: str) -> str:
    text = HOMES.sub("~", text.replace("file:///", "/"))
    text = PATH.sub(lambda path: path.group().rsplit("/", 1)[1], text)
    for name in _private_names():
        if name in text:
            text = _pattern(name).sub(HIDDEN, text)
    return text


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Where a name stands for what it names: as a whole word, and with a sign that it is one where it is our word too."""
    word = re.escape(name)
    if not _is_our_word(name):
        return re.compile(rf"(?<!\w){word}(?!\w)")
    return re.compile(
        rf"(?<=@){word}(?![\w-])|(?<![\w-]){word}(?=@)|(?<=://){word}(?=[:/]|$)|(?<![\w.-]){word}(?=\.(?:local|lan|home)\b)"
        rf"|(?<=user ){word}(?![\w-])|(?<=host ){word}(?![\w.-])|(?<=\\Users\\){word}\b"
    )


def _is_our_word(name: str) -> bool:
    return name.lower() in _our_words()


@cache
def _our_words() -> frozenset[str]:
    """Words of this package's texts and names, of Python's, and names of all that is installed beside it."""
    return frozenset(_words())


def _words() -> Iterator[str]:
    word = re.compile(r"[a-z0-9]+")
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".json"):
            with contextlib.suppress(OSError):
                yield from word.findall(path.read_text(encoding="utf-8", errors="replace").lower())
    yield from (name.lower() for name in (*sys.stdlib_module_names, *sys.modules))
    yield from FRAMEWORKS
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # as provenance has it
            yield from word.findall(distribution.metadata["Name"].lower())


FRAMEWORKS = (
    "apple", "metal", "torch", "pytorch", "tensorflow", "keras", "nvidia", "cuda", "cudnn", "cublas", "intel", "ipex",
    "onednn", "openblas", "accelerate", "triton", "geforce", "tesla", "hopper", "xeon", "epyc", "ryzen", "core", "arrow",
    "linux", "darwin", "ubuntu", "debian", "fedora", "docker", "podman", "lxc", "wsl", "gloo", "nccl", "ring",
)  # fmt: skip
"""Names of frameworks, makers and systems that results hold and this package's own texts need not."""


def _private_names() -> list[str]:
    """Names of this machine and of its user, the longest first."""
    names = {socket.gethostname(), platform.node()}
    names |= {os.environ.get(variable, "") for variable in ("USER", "LOGNAME", "SUDO_USER", "HOSTNAME")}
    with contextlib.suppress(KeyError, OSError, ImportError):  # no user name to hide
        names.add(getpass.getuser())
    names |= {name.partition(".")[0] for name in names}
    # Short ones too would mangle ordinary words.
    return sorted((n for n in names if len(n) > 3 and n.lower() not in GENERIC), key=lambda n: (-len(n), n))
