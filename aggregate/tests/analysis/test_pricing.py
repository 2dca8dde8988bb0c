"""The user's own figures go before the price file's, and what is not to be understood is said by its option."""

import json
from pathlib import Path

import pytest

from aggregate.analysis.hardware import Hardware
from aggregate.analysis.pricing import check_devices, chosen
from aggregate.tests.factory import PRICES
from shared_spec.errors import UserError

MINI = Hardware("gpu", "Apple M4", 1, None)
CARD = Hardware("gpu", "NVIDIA GeForce RTX 4070", 1, None)


def test_without_any_the_file_counts() -> None:
    assert chosen(PRICES) == PRICES


def test_a_purchase_price_of_ones_own_goes_before_the_files() -> None:
    prices = chosen(PRICES, machine_prices=["Apple M4=799 EUR,years=4,hours=500,residual=299"])
    assert prices.own("Apple M4", None).amount == pytest.approx(500 / 2000 * 1.1172)
    assert PRICES.own("Apple M4", None).amount == pytest.approx(599 / 6000)


def test_a_device_may_be_called_by_its_full_name() -> None:
    prices = chosen(PRICES, machine_prices=["NVIDIA GeForce RTX 4070=1500"])
    assert prices.own(CARD.model, None).amount == pytest.approx(1500 / 6000)


def test_a_file_of_ones_own_machines(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    machine = {"name": "mine", "devices": ["Apple M4"], "price": 500.0, "currency": "USD", "source": "receipt"}
    path.write_text(json.dumps({"owned": [machine]}))
    assert "mine at 500 USD" in chosen(PRICES, machine_prices=[str(path)]).own("Apple M4", None).notes[0]


@pytest.mark.parametrize(
    ("text", "per_kwh", "currency"),
    [("non-household", 0.1902, "EUR"), ("0.42 eur", 0.42, "EUR"), ("0.1", 0.1, "USD"), ("East North", 0.1279, "USD")],
)
def test_a_tariff_by_part_of_its_name_or_by_its_price(text: str, per_kwh: float, currency: str) -> None:
    tariff = chosen(PRICES, tariff=text).tariff
    assert tariff is not None
    assert (tariff.per_kwh, tariff.currency) == (per_kwh, currency)


def test_a_rate_and_a_currency_of_ones_own() -> None:
    prices = chosen(PRICES, exchange_rates=["EUR/USD=1.25"], currency="eur")
    assert prices.unit == "EUR"
    assert prices.rent("NVIDIA L4", None).amount == pytest.approx(0.8048 / 1.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tariff": "household"}, "'household' fits several .*EU households"),
        ({"tariff": "moon"}, "'moon' fits none .*0.35 EUR"),
        ({"tariff": "-1 EUR"}, "--tariff: per_kwh"),
        ({"tariff": "0.3 EUR kWh"}, "is no price"),
        ({"machine_prices": ["Apple M4=cheap"]}, "'cheap' is no number"),
        ({"machine_prices": ["Apple M4=599 EUR,colour=5"]}, "'colour=5' is not to be understood"),
        ({"machine_prices": ["Apple M4=599 EUR,residual=600"]}, "residual is 600, but the price is 599"),
        ({"machine_prices": ["Apple M4=599 EUR,hours=9000"]}, "hours_a_year"),
        ({"machine_prices": ["Apple M4=inf"]}, "--machine-price"),
        ({"machine_prices": ["missing.json"]}, "missing.json: cannot be read"),
        ({"exchange_rates": ["EUR=1.1"]}, "write it as EUR/USD=1.12"),
        ({"exchange_rates": ["EUR/USD=0"]}, "--exchange-rate 'EUR/USD=0': rate"),
        ({"currency": "euro"}, "--currency: 'euro' is no currency"),
    ],
)
def test_what_is_not_to_be_understood_is_said(options: dict[str, str | list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        chosen(PRICES, **options)  # type: ignore[arg-type]


def test_a_price_of_a_machine_that_is_not_compared_is_a_slip() -> None:
    check_devices(chosen(PRICES, machine_prices=["apple m4=500", "NVIDIA RTX 4070=900"]), [MINI, CARD])
    check_devices(chosen(PRICES, machine_prices=["500"]), [MINI, MINI])
    with pytest.raises(UserError, match="no result is of NVIDIA RTX 4080; there are Apple M4, NVIDIA RTX 4070"):
        check_devices(chosen(PRICES, machine_prices=["NVIDIA RTX 4080=500"]), [MINI, CARD])
    with pytest.raises(UserError, match="say which device"):
        check_devices(chosen(PRICES, machine_prices=["500"]), [MINI, CARD])
