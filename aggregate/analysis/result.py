"""A valid result, as all of the comparison sees it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from aggregate.analysis import doubts, proofs
from shared_spec.results import format
from shared_spec.results.format import AnyOutcome
from shared_spec.results.measurements import Measurements
from shared_spec.workload.spec import Spec

M = TypeVar("M", bound=Measurements)


@dataclass(frozen=True)
class Result:
    """A valid result and the file that it is from.

    Attributes:
        file: name of its file, without the folder.
        content: what the file says; texts are on one line and free of control characters.
        sha256: of the file's bytes, unpacked; a report says by it which file it is made from.
    """

    file: str
    content: format.Result
    sha256: str = ""

    @property
    def spec(self) -> Spec:
        """The workload it says it measured."""
        return self.content.spec.content

    def outcomes(self, phase: str) -> list[AnyOutcome]:
        """The outcomes of a phase, one per repeat, failed ones included."""
        return [outcome for outcome in self.content.phases if outcome.phase == phase]

    def measured(self, kind: type[M]) -> list[M]:
        """The measurements of a phase, one per repeat that ended well."""
        return self.content.measured(kind)

    @cached_property
    def objections(self) -> list[str]:
        """What its proofs lack, found again here."""
        return proofs.objections(self.content)

    @cached_property
    def doubts(self) -> list[str]:
        """What in it is hard to believe."""
        return doubts.doubts(self.content)
