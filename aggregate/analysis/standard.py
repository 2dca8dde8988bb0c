"""The workload of this clone, and where another differs from it."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from shared_spec.workload.spec import Spec, load_spec


@cache
def standard() -> Spec:
    """The workload of this clone's spec.json. What a file says of itself ("standard": true) is not asked."""
    return load_spec()


def is_standard(spec: Spec) -> bool:
    """Whether this is the workload of this clone; how often it is evaluated does not matter."""
    return spec.training_fingerprint == standard().training_fingerprint


def differences(spec: Spec) -> list[str]:
    """Where `spec` differs from the standard one, the profiles left out: "/data/train_images is 512, not 50000"."""
    ours, theirs = (dict(_leaves(s.to_dict())) for s in (standard(), spec))
    return [
        f"{pointer} is {theirs[pointer]!s:.40}, not {value!s:.40}"
        for pointer, value in ours.items()
        if not pointer.startswith("/profiles/") and theirs[pointer] != value
    ]


def _leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{pointer}/{key}")
    else:
        yield pointer, value
