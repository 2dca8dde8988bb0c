"""A valid result, as all of the comparison sees it."""

from dataclasses import dataclass
from typing import Any

from shared_spec.workload.spec import Spec

Measured = dict[str, Any]
"""Measurements of one outcome, as results.schema.json has them."""


@dataclass(frozen=True)
class Result:
    """A valid result.

    Attributes:
        file: name of its file, without the folder.
        content: as results.schema.json describes; texts are on one line and free of control characters.
        spec: the workload it says it measured.
        sha256: of the file's bytes; a report says by it which file it is made from.
    """

    file: str
    content: dict[str, Any]
    spec: Spec
    sha256: str = ""

    def outcomes(self, phase: str) -> list[dict[str, Any]]:
        """The outcomes of a phase, one per repeat, failed ones included."""
        return [outcome for outcome in self.content["phases"] if outcome["phase"] == phase]

    def measured(self, phase: str) -> list[Measured]:
        """The measurements of a phase, one per repeat that ended well."""
        return [outcome["measurements"] for outcome in self.outcomes(phase) if outcome["status"] == "ok"]

    @property
    def backend(self) -> dict[str, Any] | None:
        """What the framework said of itself; None where no phase came so far."""
        return next((outcome["backend"] for outcome in self.content["phases"] if outcome["backend"]), None)
