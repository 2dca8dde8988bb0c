"""What a full training costs: the machine by the hour, and its electricity."""

from collections.abc import Iterator

from aggregate.analysis.energy import meter
from aggregate.analysis.hardware import hardware_of
from aggregate.analysis.metrics import Figure, absent, all_absent
from aggregate.analysis.phase import Source
from shared_spec.results.format import Result
from shared_spec.results.measurements import Convergence, Epoch
from shared_spec.results.prices import JOULES_PER_KWH


def derive(measured: Convergence, source: Source) -> Iterator[Figure]:
    """Rental and electricity of a full training, to its target and over all epochs."""
    yield from _rentals(measured, source)
    yield from _electricity(measured, source)


def missed(measured: Convergence) -> str:
    """Why a training has no time to target."""
    target, n, best = measured.target_top1, len(measured.epochs), measured.best_top1
    return f"a target of {target:.1%} top-1 was not reached in {n} epoch{'s' * (n != 1)}: the best was {best:.1%}"


def epoch_of_target(measured: Convergence) -> Epoch | None:
    """The epoch at whose end the target was reached; None where it was not."""
    return None if measured.epochs_to_target is None else measured.epochs[measured.epochs_to_target - 1]


def _cut_short(measured: Convergence, result: Result) -> str:
    """Why a training is not the full one of the spec; empty where it is."""
    done, all_epochs = len(measured.epochs), result.spec.content.training.epochs
    return "" if done == all_epochs else f"the training ended after {done} of {all_epochs} epochs"


def _rentals(measured: Convergence, source: Source) -> Iterator[Figure]:
    prices, hardware = source.prices, hardware_of(source.result)
    rental = prices.rental(hardware.model, hardware.cores)
    if rental is None:
        yield from all_absent(("cost_to_target", "cost_full"), f"the price file has no machine with {hardware.short}")
        return
    notes = (f"{rental.name} at {rental.per_hour:g} {prices.currency} an hour as of {prices.as_of}",)

    def rent(metric: str, seconds: float) -> Figure:
        return Figure(metric, rental.per_hour * seconds / 3600, 1, notes=notes, unit=prices.currency)

    if measured.seconds_to_target is None:
        yield absent("cost_to_target", missed(measured), never=True)
    else:
        yield rent("cost_to_target", measured.seconds_to_target)
    if reason := _cut_short(measured, source.result):
        yield absent("cost_full", reason)
    else:
        yield rent("cost_full", measured.seconds)


def _electricity(measured: Convergence, source: Source) -> Iterator[Figure]:
    tariff, energy = source.prices.tariff, measured.energy
    if tariff is None:
        yield from all_absent(("electricity_to_target", "electricity_full"), "the price file has no tariff")
        return
    notes = (f"{tariff.name}: {tariff.per_kwh:g} {tariff.currency} per kWh", meter(energy))

    def bill(metric: str, joules: float | None) -> Figure:
        if joules is None:
            return absent(metric, energy.reason or "the meter gave no figure")
        return Figure(metric, tariff.per_kwh * joules / JOULES_PER_KWH, 1, notes=notes, unit=tariff.currency)

    if (epoch := epoch_of_target(measured)) is None:
        yield absent("electricity_to_target", missed(measured), never=True)
    else:
        yield bill("electricity_to_target", epoch.joules)
    if reason := _cut_short(measured, source.result):
        yield absent("electricity_full", reason)
    else:
        yield bill("electricity_full", energy.joules)
