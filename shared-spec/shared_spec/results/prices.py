"""Prices of machines and of electricity: dated, with source, replaceable; what is not in the file has no price."""

from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.schema import ARRAY, Model

JOULES_PER_KWH = 3.6e6

Text = Annotated[str, Field(min_length=1, max_length=400)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$(?!\n)", description="ISO 4217")]
Price = Annotated[float, Field(gt=0, le=1e6)]


class Rental(Model):
    """A machine by the hour."""

    name: Text
    per_hour: Price
    devices: Annotated[tuple[Text, ...], ARRAY] = Field(
        min_length=1,
        max_length=20,
        description="Names of the device that is rented, as the tables show them: the whole name, capitals or not",
    )
    cores: int | None = Field(
        ge=1,
        le=1_000_000,
        description="Physical cores of the rented machine (half its vCPUs), where the device is its CPU; null for a GPU",
    )


class Rentals(Model):
    """What is rented, in one currency."""

    currency: Currency
    source: Text
    items: Annotated[tuple[Rental, ...], ARRAY] = Field(max_length=1000)


class Tariff(Model):
    """Electricity by the kilowatt-hour."""

    name: Text
    per_kwh: Price
    currency: Currency
    source: Text


class Prices(Model):
    """What computing costs: rental of machines by the hour, and electricity. Every price has a source."""

    as_of: str = Field(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]$(?!\n)", description="Day of the rental prices")
    note: Text = ""
    rentals: Rentals
    tariffs: Annotated[tuple[Tariff, ...], ARRAY] = Field(
        max_length=100, description="Electricity; the first is the one that is used"
    )

    @property
    def currency(self) -> str:
        """Of the rentals."""
        return self.rentals.currency

    @property
    def source(self) -> str:
        """Of the rentals."""
        return self.rentals.source

    @property
    def tariff(self) -> Tariff | None:
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
            if cores == rental.cores and device.casefold() in (name.casefold() for name in rental.devices):
                return rental
        return None


def load_prices(path: Path | None = None) -> Prices:
    """Read a price file; None means the one that comes with this package.

    Raises:
        UserError: the file cannot be read, is not JSON or not as prices.schema.json asks.
    """
    if path is None:
        content = files.loads(
            resources.files("shared_spec").joinpath("results", "prices.json").read_text(encoding="utf-8")
        )
    else:
        content = files.read(path)
    try:
        return schema.parse(Prices, content)
    except schema.Invalid as invalid:
        raise UserError(
            f"{invalid.of(str(path or 'prices.json'))}; see prices.json of shared_spec for an example."
        ) from None
