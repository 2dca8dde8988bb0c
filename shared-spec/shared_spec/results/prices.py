"""Prices of machines and of electricity: dated, with source, replaceable; what is not in the file has no price."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from shared_spec import files
from shared_spec.errors import UserError

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Rental:
    """A machine by the hour.

    Attributes:
        devices: whole names of the device that is rented.
        cores: physical cores of the machine where that device is its CPU; None for a GPU.
    """

    name: str
    per_hour: float
    devices: tuple[str, ...]
    cores: int | None


@dataclass(frozen=True)
class Tariff:
    """Electricity by the kilowatt-hour."""

    name: str
    per_kwh: float
    currency: str
    source: str


@dataclass(frozen=True)
class Prices:
    """A price file.

    Attributes:
        as_of: day of the rental prices.
        currency, source: of the rentals.
        tariffs: the first is the one that is used.
    """

    as_of: str
    currency: str
    source: str
    rentals: tuple[Rental, ...]
    tariffs: tuple[Tariff, ...]

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
        for rental in self.rentals:
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
    for pointer, message in files.problems(content, "results/prices.schema.json"):
        raise UserError(
            f"{path or 'prices.json'}: {pointer}: {message}; see prices.json of shared_spec for an example."
        )
    rentals = content["rentals"]
    return Prices(
        content["as_of"],
        rentals["currency"],
        rentals["source"],
        tuple(Rental(r["name"], r["per_hour"], tuple(r["devices"]), r["cores"]) for r in rentals["items"]),
        tuple(Tariff(**tariff) for tariff in content["tariffs"]),
    )
