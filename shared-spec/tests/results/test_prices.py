"""The price file: what it prices, what it does not, and what it must not look like."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from shared_spec.errors import UserError
from shared_spec.results.prices import NoPrice, Owned, load_owned, load_prices

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
        ("NVIDIA H200", None, "An eighth of AWS p5en.48xlarge (8 cards, 63.296 USD, rented only whole)"),
    ],
)
def test_a_device_that_is_priced(device: str, cores: int | None, name: str) -> None:
    rental = load_prices().rental(device, cores)
    assert rental is not None
    assert rental.name == name


@pytest.mark.parametrize(
    ("device", "cores"),
    [
        ("NVIDIA H20", None),
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
    assert all(priced.source for priced in (*prices.tariffs, *prices.owned, *prices.exchange, prices.use))


def test_a_file_of_before_machines_were_owned_still_does(tmp_path: Path) -> None:
    older = {key: value for key, value in json.loads(CONTENT).items() if key in ("as_of", "rentals", "tariffs")}
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older))
    prices = load_prices(path)
    assert (prices.unit, prices.owned, prices.use) == ("USD", (), load_prices().use)


def machine(**changed: Any) -> Owned:
    fields = {
        "name": "mine",
        "devices": ["NVIDIA RTX 4070"],
        "price": 1700.0,
        "currency": "EUR",
        "source": "my receipt",
    }
    return Owned.model_validate(fields | changed)


def test_an_hour_of_an_owned_machine_is_its_price_over_all_its_hours() -> None:
    prices = load_prices().changed(currency="EUR")
    mine = machine(residual=200.0, years=5.0, hours_a_year=600.0)
    hourly = prices.changed(owned=(mine,)).own("nvidia rtx 4070", None)
    assert hourly.amount == pytest.approx(1500 / 3000)
    assert hourly.notes == (
        "mine at 1700 EUR, sold for 200, used 600 hours in each of 5 years: 0.5 EUR an hour, without electricity",
    )
    assumed = prices.changed(owned=(machine(),)).own("NVIDIA RTX 4070", None)
    assert assumed.amount == pytest.approx(1700 / 6000)
    assert "assumed" in assumed.notes[0]


def test_an_owned_machine_is_known_by_its_whole_name_and_its_cores() -> None:
    prices = load_prices()
    assert prices.changed(owned=(machine(),)).owned_machine("NVIDIA RTX 4070 Ti", None) is None
    assert prices.changed(owned=(machine(devices=[]),)).owned_machine("anything", 8) is not None
    eight = prices.changed(owned=(machine(cores=8),))
    assert [bool(eight.owned_machine("NVIDIA RTX 4070", cores)) for cores in (8, 6, None)] == [True, False, False]


def test_a_price_that_is_not_known_says_why_and_what_helps() -> None:
    prices = load_prices()
    for ask, words in (
        (
            lambda: prices.own("NVIDIA RTX 4090", None),
            "card alone started at 1,599 USD.*--machine-price 'NVIDIA RTX 4090=",
        ),
        (lambda: prices.own("Intel Core Ultra 9 285K", 24), "no purchase price .* 24 cores; --machine-price"),
        (lambda: prices.rent("Apple M4", None), "mac-m4.metal: no trustworthy price .* for 24 hours at least"),
        (lambda: prices.changed(currency="SEK").rent("NVIDIA L4", None), "from USD to SEK; --exchange-rate 'USD/SEK="),
    ):
        with pytest.raises(NoPrice, match=words):
            ask()


def test_hours_that_are_billed_at_least_are_said() -> None:
    prices = load_prices()
    rental = prices.rentals.items[0].changed(name="a Mac", per_hour=0.5, devices=("Apple M4",), minimum_hours=24.0)
    hourly = prices.changed(rentals=prices.rentals.changed(items=(rental,))).rent("Apple M4", None)
    assert hourly.amount == 0.5
    assert "24 hours are billed at least: 12 USD" in hourly.notes[0]


def test_rates_of_exchange_count_in_both_directions_and_by_way_of_a_third_currency() -> None:
    prices = load_prices()
    assert prices.exchanged("USD") == (1.0, ())
    assert prices.exchanged("EUR") == (1.1172, ("1 EUR = 1.1172 USD on 2026-10-30",))
    assert prices.changed(currency="EUR").exchanged("USD")[0] == pytest.approx(1 / 1.1172)
    assert prices.changed(currency="CHF").exchanged("USD")[0] == pytest.approx(0.9194 / 1.1172)


def test_a_small_file_of_ones_own_machines(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"owned": [machine().to_dict()]}))
    assert load_owned(path) == (machine(),)
    path.write_text(json.dumps({"owned": [{**machine().to_dict(), "residual": 2000.0}]}))
    with pytest.raises(UserError, match=r"mine.json: /owned/0/residual: is 2000, but the price is 1700"):
        load_owned(path)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    tariff = {"name": "home", "per_kwh": 0.3, "currency": "CHF", "source": "my bill"}
    prices = load_prices(saved(tmp_path, tariffs=[tariff]))
    assert prices.tariff is not None
    assert (prices.tariff.per_kwh, prices.tariff.currency) == (0.3, "CHF")
    assert load_prices(saved(tmp_path, tariffs=[])).tariff is None


@pytest.mark.parametrize(
    "changed",
    [
        {"owned": [{"name": "m", "devices": ["m"], "price": None, "currency": "EUR", "source": "s"}]},
        {"tariffs": [{"name": "free"}]},
        {"as_of": "yesterday"},
        {"rentals": {"items": []}},
        {"more": 1},
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = saved(tmp_path, **changed)
    with pytest.raises(UserError, match=str(path)):
        load_prices(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_prices(tmp_path / "missing.json")
