"""A backend that behaves where conformance looks (batches of 4, 20 steps), to be made faulty where is timed."""

from collections.abc import Iterable

from reference_backend import ReferenceBackend

from shared_spec.results.quantities import Check


class Timed(ReferenceBackend):
    """A faultless backend, which a fault changes in one method."""

    def late(self) -> bool:
        return self.state.step > 20


def failed(checks: Iterable[Check]) -> set[str]:
    """Names of the checks that failed."""
    return {check.name for check in checks if not check.passed}
