"""What a full training costs: the machine by the hour, rented or owned, and its electricity."""

from collections.abc import Callable, Iterator

from aggregate.analysis.energy import meter
from aggregate.analysis.hardware import hardware_of
from aggregate.analysis.metrics import Figure, absent, all_absent
from aggregate.analysis.phase import Source
from shared_spec.results.format import Result
from shared_spec.results.measurements import Convergence
from shared_spec.results.prices import JOULES_PER_KWH, Hourly, NoPrice


def derive(measured: Convergence, source: Source) -> Iterator[Figure]:
    """Rental, owning and electricity of a full training, to its target and over all epochs; in one currency."""
    yield from _by_the_hour(source.prices.rent, ("cost_to_target", "cost_full"), measured, source)
    yield from _by_the_hour(source.prices.own, ("owning_to_target", "owning_full"), measured, source)
    yield from _electricity(measured, source)


def missed(measured: Convergence) -> str:
    """Why a training has no time to target."""
    target, n, best = measured.target_top1, measured.epochs, measured.best_top1
    return f"a target of {target:.1%} top-1 was not reached in {n:.3g} epoch{'s' * (n != 1)}: the best was {best:.1%}"


def cut_short(measured: Convergence, result: Result) -> str:
    """Why a training is not the full one of the spec; empty where it is."""
    done, all_epochs = measured.epochs, result.spec.content.training.epochs
    return "" if done == all_epochs else f"the training ended after {done:.3g} of {all_epochs} epochs"


def _by_the_hour(
    priced: Callable[[str, int | None], Hourly], metrics: tuple[str, str], measured: Convergence, source: Source
) -> Iterator[Figure]:
    """What the machine costs, by its price of an hour: to the target, and over all epochs."""
    hardware = hardware_of(source.result)
    try:
        hourly = priced(hardware.model, hardware.cores)
    except NoPrice as reason:
        yield from all_absent(metrics, str(reason))
        return
    to_target, full = metrics

    def cost(metric: str, seconds: float) -> Figure:
        return Figure(metric, hourly.amount * seconds / 3600, 1, notes=hourly.notes, unit=source.prices.unit)

    if measured.seconds_to_target is None:
        yield absent(to_target, missed(measured), never=True)
    else:
        yield cost(to_target, measured.seconds_to_target)
    if short := cut_short(measured, source.result):
        yield absent(full, short)
    else:
        yield cost(full, measured.seconds)


def _electricity(measured: Convergence, source: Source) -> Iterator[Figure]:
    metrics, prices, energy = ("electricity_to_target", "electricity_full"), source.prices, measured.energy
    if (tariff := prices.tariff) is None:
        yield from all_absent(metrics, "the price file has no tariff")
        return
    try:
        factor, rates = prices.exchanged(tariff.currency)
    except NoPrice as reason:
        yield from all_absent(metrics, str(reason))
        return
    notes = (f"{tariff.name}: {tariff.per_kwh:g} {tariff.currency} per kWh", meter(energy), *rates)

    def bill(metric: str, joules: float | None) -> Figure:
        if joules is None:
            return absent(metric, energy.reason or "the meter gave no figure")
        return Figure(metric, factor * tariff.per_kwh * joules / JOULES_PER_KWH, 1, notes=notes, unit=prices.unit)

    if (reached := measured.at_target) is None:
        yield absent("electricity_to_target", missed(measured), never=True)
    else:
        yield bill("electricity_to_target", reached.joules)
    if short := cut_short(measured, source.result):
        yield absent("electricity_full", short)
    else:
        yield bill("electricity_full", energy.joules)
