"""Compiled programs that XLA keeps on disk from one process to the next; imports no framework.

TensorFlow's keys tell what a program computes; all else that it depends on is in the folder's name.
"""

import hashlib
import os
import re
import shutil
import time
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from shared_spec import places
from shared_spec.errors import UserError

FLAG = "--tf_xla_persistent_cache_directory="
UNUSED_SECONDS = 30 * 86400.0
EXECUTABLE = 3
"""Number of the field of XlaSerializedCacheEntry (tensorflow/compiler/jit/xla_compilation_cache.proto) that comes last."""


def _machine(flags: list[str]) -> str:
    """Digest of what a compiled program depends on besides its source: flags, GPUs, their driver, NVIDIA's libraries."""
    libraries = sorted(f"{d.name} {d.version}" for d in distributions() if d.name.startswith(("nvidia", "tensorflow")))
    proc = Path("/proc/driver/nvidia")
    told = [*sorted(proc.glob("gpus/*/information")), proc / "version"]
    models = [re.findall(r"(?:Model|NVRM).*", path.read_text()) for path in told if path.exists()]
    return hashlib.sha256(repr((flags, libraries, models)).encode()).hexdigest()[:16]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number as Protocol Buffers write it, and where it ends."""
    value = shift = 0
    while content[at] & 0x80:
        value |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1


def is_whole(path: Path) -> bool:
    """Whether a file of TensorFlow's holds a program to its end: all its fields are messages or bytes with their length."""
    content, at, field = path.read_bytes(), 0, 0
    try:
        while at < len(content):
            key, at = _varint(content, at)
            length, at = _varint(content, at)
            field, at = key >> 3, at + length
            if key & 7 != 2:
                return False
    except IndexError:
        return False
    return at == len(content) and field == EXECUTABLE


def _forget_unused(root: Path) -> None:
    """Remove programs of other versions, drivers or flags to which none has been added for a month."""
    for folder in root.glob("xla-*/programs-*"):
        if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def flags(rank: int) -> dict[str, str]:
    """TF_XLA_FLAGS with a folder of this user's for compiled programs; nothing where the user's own flags name one.

    Each rank of a host has its own: processes can take each other's files for the moment away. A program whose process
    ended while it was written is removed, since TensorFlow fails on it.
    """
    try:
        base = places.cache(places.CACHE) / f"xla-{version('tensorflow')}"
    except (PackageNotFoundError, UserError):  # a build under another name; no folder takes files
        return {}
    own = [flag for flag in os.environ.get("TF_XLA_FLAGS", "").split() if f"={base}/" not in flag]
    names_a_file = bool(own) and not own[0].startswith("-")
    if names_a_file or any(flag.startswith(FLAG) for flag in own) or re.search(r"[\s'\"]", str(base)):
        return {}
    folder = base / f"programs-{rank}-{_machine(os.environ.get('XLA_FLAGS', '').split())}"
    _forget_unused(base.parent)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.pb"):
        if not is_whole(path):
            path.unlink(missing_ok=True)
    return {"TF_XLA_FLAGS": " ".join([*own, f"{FLAG}{folder}"])}
