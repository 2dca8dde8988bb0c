"""Prices of machines and of electricity: dated, with source, replaceable; what is not in the file has no price."""

import math
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.schema import ARRAY, Model, contradiction

JOULES_PER_KWH = 3.6e6

Text = Annotated[str, Field(min_length=1, max_length=400)]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]$(?!\n)")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$(?!\n)", description="ISO 4217")]
Price = Annotated[float, Field(gt=0, le=1e6)]
Cores = Annotated[int, Field(ge=1, le=1_000_000)]
Devices = Annotated[
    tuple[Text, ...],
    ARRAY,
    Field(
        max_length=20,
        description="Names of the device, as the tables show them: the whole name, capitals or not",
    ),
]
Years = Annotated[float, Field(gt=0, le=100)]
HoursAYear = Annotated[float, Field(gt=0, le=8784)]


def _price_or_reason(price: float | None, reason: str | None, name: str) -> None:
    if (price is None) == (reason is None):
        raise contradiction(("", f"must have either {name} or the reason why it has none"))


class Rental(Model):
    """A machine by the hour."""

    name: Text
    per_hour: Price | None = Field(description="null where no price with a source is known")
    reason: Text | None = Field(default=None, description="Why it is null")
    devices: Devices = Field(min_length=1)
    cores: Cores | None = Field(
        description="Physical cores of the rented machine (half its vCPUs), where the device is its CPU; null for a GPU",
    )
    minimum_hours: Price | None = Field(default=None, description="Hours that are billed at least")
    as_of: Day | None = Field(default=None, description="Where it is not the file's")
    source: Text | None = Field(default=None, description="Where it is not that of the list")

    @model_validator(mode="after")
    def _has_a_price_or_a_reason(self) -> Self:
        _price_or_reason(self.per_hour, self.reason, "per_hour")
        return self


class Rentals(Model):
    """What is rented, in one currency."""

    currency: Currency
    source: Text
    items: Annotated[tuple[Rental, ...], ARRAY] = Field(max_length=1000)


class Use(Model):
    """For how long a machine is bought, and how much it is used: its price is spread over these hours."""

    years: Years
    hours_a_year: HoursAYear
    source: Text


ASSUMED = Use(years=3.0, hours_a_year=2000.0, source="assumed: eight hours on each of 250 days")


class Owned(Model):
    """A machine that one buys."""

    name: Text = Field(description="What the price buys")
    devices: Devices = Field(description="None stands for any")
    cores: Cores | None = Field(default=None, description="Physical cores, where only a CPU with so many is meant")
    price: Price | None = Field(description="null where no purchase price with a source is known")
    reason: Text | None = Field(default=None, description="Why it is null")
    currency: Currency
    as_of: Day | None = None
    source: Text
    residual: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=0.0, description="What it still sells for at the end, in the same currency"
    )
    years: Years | None = Field(default=None, description="Where it is not the file's")
    hours_a_year: HoursAYear | None = Field(default=None, description="Where it is not the file's")

    @model_validator(mode="after")
    def _is_worth_something(self) -> Self:
        _price_or_reason(self.price, self.reason, "a price")
        if self.price is not None and self.residual >= self.price:
            raise contradiction(("/residual", f"is {self.residual:g}, but the price is {self.price:g}"))
        return self


class Tariff(Model):
    """Electricity by the kilowatt-hour."""

    name: Text
    per_kwh: Price
    currency: Currency
    source: Text


class Exchange(Model):
    """What a unit of one currency was worth in another."""

    currency: Currency = Field(description="One unit of this")
    rate: Price = Field(description="... was worth so many")
    into: Currency = Field(description="... of this")
    as_of: Day | None = None
    source: Text

    @property
    def words(self) -> str:
        """For notes: "1 EUR = 1.1172 USD on 2026-10-30"."""
        return f"1 {self.currency} = {self.rate:g} {self.into}" + (f" on {self.as_of}" if self.as_of else "")


@dataclass(frozen=True)
class Hourly:
    """What an hour of a machine costs.

    Attributes:
        amount: in the currency of the prices.
        notes: how it comes about.
    """

    amount: float
    notes: tuple[str, ...]


class NoPrice(Exception):
    """What is asked for has no price; the text says why, and what gives it one."""


class Prices(Model):
    """What computing costs: machines by the hour, rented or owned, and electricity. Every price has a source."""

    as_of: Day = Field(description="Day of the rental prices")
    note: Text = ""
    currency: Currency | None = Field(default=None, description="What costs are given in; null: that of the rentals")
    rentals: Rentals
    use: Use = Field(default=ASSUMED, description="Of owned machines")
    owned: Annotated[tuple[Owned, ...], ARRAY] = Field(default=(), max_length=1000)
    tariffs: Annotated[tuple[Tariff, ...], ARRAY] = Field(
        max_length=100, description="Electricity; the first is the one that is used"
    )
    exchange: Annotated[tuple[Exchange, ...], ARRAY] = Field(
        default=(), max_length=100, description="Rates between two currencies, in either direction; the first counts"
    )

    @property
    def unit(self) -> str:
        """The one currency that costs are given in."""
        return self.currency or self.rentals.currency

    @property
    def source(self) -> str:
        """Of the rentals."""
        return self.rentals.source

    @property
    def tariff(self) -> Tariff | None:
        """The one that is used."""
        return self.tariffs[0] if self.tariffs else None

    def rental(self, device: str, cores: int | None) -> Rental | None:
        """The first rental with this very device; None where the file has none.

        A name counts only as a whole, so that an L40S is not priced as an L4, and a CPU only with as many cores as
        the rented machine has: a share of a machine has no price.

        Args:
            device: name without trademarks and clock rates, as the tables show it.
            cores: physical cores where the device is a CPU, else None.
        """
        for rental in self.rentals.items:
            if cores == rental.cores and _is_of(rental.devices, device):
                return rental
        return None

    def owned_machine(self, device: str, cores: int | None) -> Owned | None:
        """The first owned machine with this very device; None where the file has none. Arguments as of rental()."""
        for owned in self.owned:
            if owned.cores in (None, cores) and (not owned.devices or _is_of(owned.devices, device)):
                return owned
        return None

    def rent(self, device: str, cores: int | None) -> Hourly:
        """An hour of a rented machine with this device; arguments as of rental().

        Raises:
            NoPrice: the file has no such machine, no price of it, or none in this currency.
        """
        rental = self.rental(device, cores)
        if rental is None:
            raise NoPrice(f"the price file has no machine with {_named(device, cores)}")
        if rental.per_hour is None:
            raise NoPrice(f"{rental.name}: {rental.reason}")
        currency = self.rentals.currency
        factor, notes = self.exchanged(currency)
        words = f"{rental.name} at {rental.per_hour:g} {currency} an hour as of {rental.as_of or self.as_of}"
        if rental.minimum_hours is not None:
            least = rental.minimum_hours * rental.per_hour
            words += f"; {rental.minimum_hours:g} hours are billed at least: {least:g} {currency}"
        return Hourly(factor * rental.per_hour, (words, *notes))

    def own(self, device: str, cores: int | None) -> Hourly:
        """An hour of a machine with this device that one owns, without electricity; arguments as of rental().

        Raises:
            NoPrice: the file has no such machine, no price of it, or none in this currency.
        """
        owned = self.owned_machine(device, cores)
        named = _named(device, cores)
        yours = f"; --machine-price '{device}=PRICE {self.unit}' takes yours"
        if owned is None:
            raise NoPrice(f"the price file has no purchase price of a machine with {named}{yours}")
        if owned.price is None:
            raise NoPrice(f"{owned.name}: {owned.reason}{yours}")
        factor, notes = self.exchanged(owned.currency)
        years, hours = owned.years or self.use.years, owned.hours_a_year or self.use.hours_a_year
        per_hour = (owned.price - owned.residual) / (years * hours)
        bought = f"{owned.name} at {owned.price:g} {owned.currency}" + (f" as of {owned.as_of}" if owned.as_of else "")
        sold = f", sold for {owned.residual:g}" if owned.residual else ""
        assumed = "" if owned.years and owned.hours_a_year else f" ({self.use.source})"
        used = f"used {hours:g} hours in each of {years:g} years{assumed}"
        words = f"{bought}{sold}, {used}: {per_hour:.3g} {owned.currency} an hour, without electricity"
        return Hourly(factor * per_hour, (words, *notes))

    def exchanged(self, currency: str) -> tuple[float, tuple[str, ...]]:
        """What a unit of `currency` is worth in that of the prices, and how that is known.

        Raises:
            NoPrice: there is no rate between the two.
        """
        if currency == self.unit:
            return 1.0, ()
        between = {exchange.currency for exchange in self.exchange} | {exchange.into for exchange in self.exchange}
        for steps in [(currency, self.unit), *((currency, middle, self.unit) for middle in sorted(between))]:
            rates = [self._rate(*pair) for pair in pairwise(steps)]
            known = [rate for rate in rates if rate is not None]
            if len(known) == len(rates):
                return math.prod(factor for factor, _ in known), tuple(words for _, words in known)
        raise NoPrice(
            f"the price file has no exchange rate from {currency} to {self.unit}; "
            f"--exchange-rate '{currency}/{self.unit}=RATE' takes one"
        )

    def _rate(self, currency: str, into: str) -> tuple[float, str] | None:
        """What one currency is worth in another, directly, and the words for it."""
        for exchange in self.exchange:
            if (exchange.currency, exchange.into) == (currency, into):
                return exchange.rate, exchange.words
            if (exchange.into, exchange.currency) == (currency, into):
                return 1 / exchange.rate, exchange.words
        return None


def _is_of(devices: tuple[str, ...], device: str) -> bool:
    return device.casefold() in (name.casefold() for name in devices)


def _named(device: str, cores: int | None) -> str:
    return f"{device}, {cores} core{'s' * (cores != 1)}" if cores else device


class _OwnedMachines(Model):
    """A small file of one's own machines."""

    owned: Annotated[tuple[Owned, ...], ARRAY] = Field(min_length=1, max_length=1000)


def load_owned(path: Path) -> tuple[Owned, ...]:
    """Read a file of one's own machines: an object whose `owned` is as that of prices.json.

    Raises:
        UserError: the file cannot be read, is not JSON or has another content.
    """
    return _parsed(_OwnedMachines, files.read(path), str(path)).owned


def load_prices(path: Path | None = None) -> Prices:
    """Read a price file; None means the one that comes with this package.

    Raises:
        UserError: the file cannot be read, is not JSON or not as prices.schema.json asks.
    """
    if path is not None:
        return _parsed(Prices, files.read(path), str(path))
    text = resources.files("shared_spec").joinpath("results", "prices.json").read_text(encoding="utf-8")
    return _parsed(Prices, files.loads(text), "prices.json")


def _parsed(kind: type[schema.M], content: Any, where: str) -> schema.M:
    try:
        return schema.parse(kind, content)
    except schema.Invalid as invalid:
        raise UserError(f"{invalid.of(where)}; see prices.json of shared_spec for an example.") from None
