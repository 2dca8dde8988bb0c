"""The user's own figures in place of the price file's: tariff, purchase prices, exchange rates, currency."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aggregate.analysis.hardware import Hardware, plain_name
from shared_spec import schema
from shared_spec.errors import UserError
from shared_spec.results.prices import Exchange, Owned, Prices, Tariff, load_owned

YOURS = "your own figure"
"""Source of what stands on the command line."""
MACHINE = "--machine-price 'DEVICE=PRICE CURRENCY,years=3,hours=2000,residual=100', or a small JSON file"
PARTS = {"years": "years", "hours": "hours_a_year", "residual": "residual"}


def chosen(
    prices: Prices,
    tariff: str | None = None,
    machine_prices: Sequence[str] = (),
    exchange_rates: Sequence[str] = (),
    currency: str | None = None,
) -> Prices:
    """Prices in which the user's figures go before those of the file.

    Args:
        prices: of the file.
        tariff: part of the name of one of its tariffs, or "0.35 EUR", the price of a kilowatt-hour.
        machine_prices: each "DEVICE=PRICE CURRENCY,years=...,hours=...,residual=...", or a JSON file of such machines.
        exchange_rates: each "EUR/USD=1.12".
        currency: that costs are given in.

    Raises:
        UserError: one of them is not to be understood; the text names the option.
    """
    if currency is not None:
        prices = prices.changed(currency=_currency(currency, "--currency"))
    owned = [machine for text in machine_prices for machine in _machines(text, prices.unit)]
    rates = [_exchange(text) for text in exchange_rates]
    prices = prices.changed(owned=(*owned, *prices.owned), exchange=(*rates, *prices.exchange))
    return prices if tariff is None else prices.changed(tariffs=(_tariff(tariff, prices), *prices.tariffs))


def check_devices(prices: Prices, machines: Sequence[Hardware]) -> None:
    """That each of the user's purchase prices is that of one of the machines which are compared.

    Raises:
        UserError: one is of another device, or of none where there are several.
    """
    names = list(dict.fromkeys(machine.model for machine in machines))
    here = ", ".join(names)
    known = {name.casefold() for name in names}
    for owned in prices.owned:
        if owned.source != YOURS:
            continue
        if not owned.devices and len(names) > 1:
            raise UserError(f"--machine-price: say which device it is of, as 'DEVICE=PRICE'; there are {here}.")
        if owned.devices and not known & {device.casefold() for device in owned.devices}:
            raise UserError(f"--machine-price: no result is of {', '.join(owned.devices)}; there are {here}.")


def _currency(text: str, option: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}", text):
        raise UserError(f"{option}: {text!r} is no currency; give its three letters, as EUR.")
    return text.upper()


def _made(kind: type[schema.M], option: str, **fields: Any) -> schema.M:
    try:
        return schema.parse(kind, fields)
    except schema.Invalid as invalid:
        problems = "; ".join(f"{pointer.strip('/')} {message}".strip() for pointer, message in invalid.problems)
        raise UserError(f"{option}: {problems}.") from None


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{option}: {text!r} is no number.") from None


def _amount(text: str, currency: str, option: str) -> tuple[float, str]:
    """The amount and its currency: "599 EUR" is (599.0, "EUR"), and "599" is in `currency`."""
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise UserError(f"{option}: {text!r} is no price; give a number and a currency, as 599 EUR.")
    return _number(words[0], option), _currency(words[1], option) if len(words) == 2 else currency


def _machines(text: str, currency: str) -> tuple[Owned, ...]:
    if text.endswith(".json"):
        return load_owned(Path(text))
    option = f"--machine-price {text!r}"
    head, *rest = text.split(",")
    device, _, price = head.rpartition("=")
    parts: dict[str, float] = {}
    for part in rest:
        name, _, value = part.partition("=")
        if name.strip() not in PARTS:
            raise UserError(f"{option}: {part.strip()!r} is not to be understood; write {MACHINE}.")
        parts[PARTS[name.strip()]] = _number(value, option)
    amount, of = _amount(price, currency, option)
    devices = [plain_name(device)] if device.strip() else []
    name = f"{devices[0]} of your own" if devices else "a machine of your own"
    return (_made(Owned, option, name=name, devices=devices, price=amount, currency=of, source=YOURS, **parts),)


def _exchange(text: str) -> Exchange:
    option = f"--exchange-rate {text!r}"
    pair, _, rate = text.partition("=")
    first, _, second = (part.strip() for part in pair.partition("/"))
    if not rate or not second:
        raise UserError(f"{option}: write it as EUR/USD=1.12, what one euro is worth in dollars.")
    currency, into = _currency(first, option), _currency(second, option)
    return _made(Exchange, option, currency=currency, rate=_number(rate, option), into=into, source=YOURS)


def _tariff(text: str, prices: Prices) -> Tariff:
    if re.match(r"\s*[\d.+-]", text):
        per_kwh, currency = _amount(text, prices.unit, f"--tariff {text!r}")
        return _made(Tariff, "--tariff", name="your tariff", per_kwh=per_kwh, currency=currency, source=YOURS)
    found = [tariff for tariff in prices.tariffs if text.casefold() in tariff.name.casefold()]
    if len(found) == 1:
        return found[0]
    which = "; ".join(tariff.name for tariff in found or prices.tariffs) or "none"
    many = "fits several" if found else "fits none"
    raise UserError(f"--tariff: {text!r} {many} of the price file's: {which}. A price is given as '0.35 EUR'.")
