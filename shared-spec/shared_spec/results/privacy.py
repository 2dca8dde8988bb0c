"""What a result must not tell: where files lie on the machine that was measured, and what it and its user are called."""

import contextlib
import getpass
import platform
import re
import socket
from collections.abc import Mapping
from typing import Any

PATH = re.compile(r"(?<![\w.:/])(?!/(?:sys|dev)/)(?:~|/)[\w.+@~-]*(?:/[\w.+@~-]+)+")
"""An absolute path of two names or more; /sys and /dev are alike everywhere and name nobody."""


def scrub(value: Any) -> Any:
    """`value` with folders cut off paths and host and user names replaced, in every string within."""
    if isinstance(value, str):
        text = PATH.sub(lambda path: path.group().rsplit("/", 1)[1], value)
        for name in _private_names():
            text = re.sub(rf"\b{re.escape(name)}\b", "(hidden)", text)
        return text
    if isinstance(value, Mapping):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    return value


def _private_names() -> list[str]:
    """Names of this machine and of its user, the longest first."""
    names = {socket.gethostname(), platform.node()}
    with contextlib.suppress(KeyError, OSError):  # no user name to hide
        names.add(getpass.getuser())
    # Short or generic names ("root", "user") tell nothing and would mangle ordinary words.
    return sorted((n for n in names if len(n) > 3 and n not in ("root", "user", "localhost")), key=len, reverse=True)
