"""Caches of compiled programs: whether a process can start warm."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def programs(folders: Iterable[Path] | None) -> int | None:
    """Files below these folders, one that is missing having none; None where nothing is known of any cache."""
    if folders is None:
        return None
    return sum(len(names) for folder in folders for _, _, names in os.walk(folder))


def cuda_driver(env: Mapping[str, str]) -> list[Path]:
    """Where NVIDIA's driver keeps the machine code that it has made of PTX (CUDA's programming guide, "CUDA_CACHE_PATH")."""
    if env.get("CUDA_CACHE_DISABLE") == "1":
        return []
    return [Path(env.get("CUDA_CACHE_PATH") or os.path.expanduser("~/.nv/ComputeCache"))]
