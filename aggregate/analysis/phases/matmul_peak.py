"""The phase that measures the device's own matrix-product rate; results call it "ceiling"."""

from collections.abc import Iterator

from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.phase import Phase, Source
from aggregate.analysis.plausibility import MAX_FLOPS, UNIT, Problems, total_seconds
from shared_spec.results.format import Result
from shared_spec.results.measurements import Ceiling

METRICS = (
    Metric("ceiling", "ceiling", "Matrix-product rate", "TFLOP/s", 3,
           "2 n^3 per product of two [n, n] matrices at this precision; the best n"),
)  # fmt: skip


def _derive(measured: Ceiling, source: Source) -> Iterator[Figure]:
    best = measured.fastest
    yield Figure("ceiling", best.operations_per_second / 1e12, len(measured.sizes), notes=(f"at n = {best.n:,}",))


def _contradictions(measured: Ceiling, here: str, result: Result) -> Problems:
    each = [size.operations_per_second for size in measured.sizes]
    for i, rate in enumerate(each):
        if rate > MAX_FLOPS:
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, which no device does"
        if i and max(rate, each[i - 1]) > UNIT * min(rate, each[i - 1]):
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, the size before {each[i - 1]:.3g}"


def _seconds(measured: Ceiling) -> float:
    return sum(total_seconds(size.blocks) for size in measured.sizes)


PHASE = Phase("ceiling", METRICS, _derive, _contradictions, _seconds)
