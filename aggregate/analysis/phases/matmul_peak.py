"""The phase that measures the device's own matrix-product rate; results call it "ceiling"."""

from collections.abc import Iterator

from aggregate.analysis.metrics import Figure, Metric
from aggregate.analysis.phase import Head, Phase, Source
from aggregate.analysis.plausibility import MAX_FLOPS, UNIT, Problems, total_seconds
from aggregate.analysis.result import Measured
from shared_spec.results.stability import step_rate

METRICS = (
    Metric("ceiling", "ceiling", "Matrix-product rate", "TFLOP/s", 3,
           "2 n^3 per product of two [n, n] matrices at this precision; the best n"),
)  # fmt: skip


def rates(measured: Measured) -> dict[int, float]:
    """Operations per second of [n, n] matrix products, by n."""
    return {int(size["n"]): 2.0 * size["n"] ** 3 * step_rate(size["blocks"]) for size in measured["sizes"]}


def _derive(measured: Measured, source: Source) -> Iterator[Figure]:
    n, rate = max(rates(measured).items(), key=lambda item: item[1])
    yield Figure("ceiling", rate / 1e12, len(measured["sizes"]), notes=(f"at n = {n:,}",))


def _contradictions(measured: Measured, here: str, head: Head) -> Problems:
    each = [2.0 * size["n"] ** 3 * step_rate(size["blocks"]) for size in measured["sizes"]]
    for i, rate in enumerate(each):
        if rate > MAX_FLOPS:
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, which no device does"
        if i and max(rate, each[i - 1]) > UNIT * min(rate, each[i - 1]):
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, the size before {each[i - 1]:.3g}"


def _seconds(measured: Measured) -> float:
    return sum(total_seconds(size["blocks"]) for size in measured["sizes"])


PHASE = Phase("ceiling", METRICS, _derive, _contradictions, _seconds)
