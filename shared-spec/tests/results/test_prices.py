"""The price file: what it prices, what it does not, and what it must not look like."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from shared_spec.errors import UserError
from shared_spec.results.prices import load_prices

CONTENT = resources.files("shared_spec").joinpath("results", "prices.json").read_text(encoding="utf-8")


def saved(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(json.loads(CONTENT) | changed))
    return path


@pytest.mark.parametrize(
    ("device", "cores", "name"),
    [
        ("NVIDIA L4", None, "AWS g6.xlarge"),
        ("nvidia l40s", None, "AWS g6e.xlarge"),
        ("NVIDIA H100 80GB HBM3", None, "AWS p5.4xlarge"),
        ("Intel Xeon Platinum 8488C", 8, "AWS c7i.4xlarge"),
        ("Intel Xeon Platinum 8488C", 16, "AWS c7i.8xlarge"),
    ],
)
def test_a_device_that_is_priced(device: str, cores: int | None, name: str) -> None:
    rental = load_prices().rental(device, cores)
    assert rental is not None
    assert rental.name == name


@pytest.mark.parametrize(
    ("device", "cores"),
    [
        ("NVIDIA H200", None),
        ("Apple M4 Max", None),
        ("NVIDIA L40", None),
        ("2 x NVIDIA L4", None),
        ("Intel Xeon Platinum 8488C", 2),
        ("Intel Xeon Platinum 8488C", None),
        ("", None),
    ],
)
def test_a_device_that_is_not(device: str, cores: int | None) -> None:
    assert load_prices().rental(device, cores) is None


def test_every_price_says_where_it_is_from() -> None:
    prices = load_prices()
    assert prices.source
    assert all(tariff.source for tariff in prices.tariffs)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    tariff = {"name": "home", "per_kwh": 0.3, "currency": "CHF", "source": "my bill"}
    prices = load_prices(saved(tmp_path, tariffs=[tariff]))
    assert prices.tariff is not None
    assert (prices.tariff.per_kwh, prices.tariff.currency) == (0.3, "CHF")
    assert load_prices(saved(tmp_path, tariffs=[])).tariff is None


@pytest.mark.parametrize(
    "changed",
    [{"tariffs": [{"name": "free"}]}, {"as_of": "yesterday"}, {"rentals": {"items": []}}, {"more": 1}],
)
def test_a_file_that_is_wrong_is_refused_with_its_name(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = saved(tmp_path, **changed)
    with pytest.raises(UserError, match=str(path)):
        load_prices(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_prices(tmp_path / "missing.json")
