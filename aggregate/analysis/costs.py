"""What a full training costs: the machine by the hour, and its electricity."""

from collections.abc import Iterator

from aggregate.analysis.energy import meter, unmetered
from aggregate.analysis.hardware import hardware_of
from aggregate.analysis.metrics import Figure, absent, all_absent
from aggregate.analysis.phase import Source
from aggregate.analysis.result import Measured, Result
from shared_spec.results.prices import JOULES_PER_KWH


def derive(measured: Measured, source: Source) -> Iterator[Figure]:
    """Rental and electricity of a full training, to its target and over all epochs."""
    yield from _rentals(measured, source)
    yield from _electricity(measured, source)


def missed(measured: Measured) -> str:
    """Why a training has no time to target."""
    best = max(epoch["top1"] for epoch in measured["epochs"])
    target, n = measured["target_top1"], len(measured["epochs"])
    return f"a target of {target:.1%} top-1 was not reached in {n} epoch{'s' * (n != 1)}: the best was {best:.1%}"


def joules_to_target(measured: Measured) -> float | None:
    """Of a training that reached its target; None where there was no meter."""
    joules: float | None = measured["epochs"][measured["epochs_to_target"] - 1]["joules"]
    return joules


def _cut_short(measured: Measured, result: Result) -> str:
    """Why a training is not the full one of the spec; empty where it is."""
    done, all_epochs = len(measured["epochs"]), result.spec.training.epochs
    return "" if done == all_epochs else f"the training ended after {done} of {all_epochs} epochs"


def _rentals(measured: Measured, source: Source) -> Iterator[Figure]:
    prices, hardware = source.prices, hardware_of(source.result)
    rental = prices.rental(hardware.model, hardware.cores)
    if rental is None:
        yield from all_absent(("cost_to_target", "cost_full"), f"the price file has no machine with {hardware.short}")
        return
    notes = (f"{rental.name} at {rental.per_hour:g} {prices.currency} an hour as of {prices.as_of}",)

    def rent(metric: str, seconds: float) -> Figure:
        return Figure(metric, rental.per_hour * seconds / 3600, 1, notes=notes, unit=prices.currency)

    if measured["epochs_to_target"] is None:
        yield absent("cost_to_target", missed(measured), never=True)
    else:
        yield rent("cost_to_target", measured["seconds_to_target"])
    if reason := _cut_short(measured, source.result):
        yield absent("cost_full", reason)
    else:
        yield rent("cost_full", measured["seconds"])


def _electricity(measured: Measured, source: Source) -> Iterator[Figure]:
    tariff, energy = source.prices.tariff, measured["energy"]
    if tariff is None:
        yield from all_absent(("electricity_to_target", "electricity_full"), "the price file has no tariff")
        return
    notes = (f"{tariff.name}: {tariff.per_kwh:g} {tariff.currency} per kWh", meter(energy))

    def bill(metric: str, joules: float | None) -> Figure:
        if joules is None:
            return absent(metric, unmetered(energy))
        return Figure(metric, tariff.per_kwh * joules / JOULES_PER_KWH, 1, notes=notes, unit=tariff.currency)

    if measured["epochs_to_target"] is None:
        yield absent("electricity_to_target", missed(measured), never=True)
    else:
        yield bill("electricity_to_target", joules_to_target(measured))
    if reason := _cut_short(measured, source.result):
        yield absent("electricity_full", reason)
    else:
        yield bill("electricity_full", energy["joules"])
