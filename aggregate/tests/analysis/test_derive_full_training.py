"""What a full training comes to: time to the target, throughput, seeds outside the reference, and what it costs."""

import math
from typing import Any

import pytest

from aggregate.analysis.derive import derive
from aggregate.analysis.metrics import Figure
from aggregate.analysis.result import Result
from aggregate.tests.analysis.test_derive import PRICED_BY_THE_HOUR, figures
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result
from shared_spec.results import format


def full_training(platform: str = "mlx", device: str | None = None, **measured: Any) -> dict[str, Figure]:
    content = make_result(platform, phases=("convergence",), device_name=device)
    content["phases"][0]["measurements"] |= measured
    return figures(content)


def epochs(*top1: float) -> list[dict[str, Any]]:
    """Evaluations at the ends of epochs of 100 s: 10 s of it evaluation, 2 s checkpoint, 1 kJ a second."""
    return [
        {
            "step": 1562 * i, "first_seconds": 14.0, "seconds": 100.0 * i,
            "evaluation_seconds": 10.0 * i, "checkpoint_seconds": 2.0 * (i - 1),
            "train_loss": 4.0, "test_loss": 4.0, "top1": accuracy, "class_right": None, "joules": 1e5 * i,
        }
        for i, accuracy in enumerate(top1, 1)
    ]  # fmt: skip


def test_time_to_target_with_and_without_what_is_no_training() -> None:
    rows = epochs(0.2, 0.5, 0.4)
    derived = full_training(evaluations=rows, epochs_to_target=2.0, seconds_to_target=200.0, seconds=300.0)
    assert derived["target_reached"].value == 1
    assert derived["time_to_target"].value == pytest.approx(200 / 60)
    assert derived["training_to_target"].value == pytest.approx((200 - 20 - 2 - 12) / 60)
    assert derived["epochs_to_target"].value == 2
    # 25 of the 30 points from 20 to 50 % lie below the target.
    assert derived["target_crossing"].value == pytest.approx((100 + 100 * 25 / 30) / 60)
    assert derived["epochs_to_crossing"].value == pytest.approx(1 + 25 / 30)
    assert derived["crossing_warm"].value == pytest.approx((100 + 100 * 25 / 30 - 14) / 60)
    assert (derived["top1_best"].value, derived["top1_final"].value) == (50.0, 40.0)
    assert derived["energy_to_target"].value == pytest.approx(200.0)


def test_throughput_of_the_whole_training() -> None:
    clocks: Any = {"seconds": 300.0, "evaluation_seconds": 30.0, "checkpoint_seconds": 8.0, "first_step_seconds": 12.0}
    derived = full_training(images=3000, **clocks)
    assert derived["full_throughput"].value == pytest.approx(10.0)
    assert derived["full_throughput_training"].value == pytest.approx(3000 / 250)


def test_a_first_evaluation_above_the_target_is_not_interpolated() -> None:
    derived = full_training(evaluations=epochs(0.5, 0.6), epochs_to_target=1.0, seconds_to_target=100.0)
    assert derived["target_crossing"].value == derived["time_to_target"].value == pytest.approx(100 / 60)


def test_a_training_outside_the_reference_is_flagged() -> None:
    def against_reference(*top1: float) -> Figure:
        return full_training(evaluations=epochs(*top1), epochs_to_target=None, seconds_to_target=None)["top1_reference"]

    right = against_reference(*[0.3] * 8, 0.446, 0.46, *[0.48] * 4, 0.495)
    assert right.value == pytest.approx(0.0, abs=0.1)
    assert not right.notes
    slow = against_reference(*[0.3] * 13, 0.46, 0.47)
    assert slow.value == pytest.approx(-2.5, abs=0.1)
    assert [note.split(" than")[0] for note in slow.notes] == ["it ended worse", "it learned slower"]
    assert "ended after 2 of 15 epochs" in against_reference(0.2, 0.3).reason


@pytest.mark.parametrize(("cached", "words"), [(0, "cold start"), (7, "warm start: 7 files"), (None, None)])
def test_cold_and_warm_starts_are_told_apart(cached: int | None, words: str | None) -> None:
    content = make_result(phases=("convergence",))
    content["phases"][0]["startup"]["cached_programs"] = cached
    first = figures(content)["first_steps"]
    assert first.value == pytest.approx(12.5 / 60)
    assert len(first.notes) == (words is not None)
    assert all(note.startswith(words or "") for note in first.notes)


def test_a_missed_target_is_never_and_says_how_near_it_came() -> None:
    derived = full_training(evaluations=epochs(0.2, 0.441), epochs_to_target=None, seconds_to_target=None)
    assert derived["target_reached"].value == 0
    for key in ("time_to_target", "epochs_to_target", "cost_to_target", "energy_to_target", "electricity_to_target"):
        assert math.isnan(derived[key].value)
    assert derived["time_to_target"].never
    assert "not reached in 2 epochs: the best was 44.1%" in derived["time_to_target"].reason


def test_resumed_and_diverged_is_said_beside_the_time() -> None:
    assert any("resumed 2 times" in note for note in full_training(resumed=2)["time_to_target"].notes)
    broken = epochs(0.2, 0.5)
    broken[-1]["test_loss"] = None
    notes = full_training(evaluations=broken, epochs_to_target=2.0)["target_reached"].notes
    assert notes == ("the loss was no longer finite after 2 epochs",)


def test_rental_is_hours_by_the_price_of_the_very_device() -> None:
    found = full_training("tf-cuda", "NVIDIA L4", epochs_to_target=2.0, seconds_to_target=1800.0, seconds=3600.0)
    assert found["cost_to_target"].value == pytest.approx(0.8048 / 2)
    assert found["cost_full"].value == pytest.approx(0.8048)
    assert (found["cost_full"].unit, "AWS g6.xlarge" in found["cost_full"].notes[0]) == ("USD", True)
    unknown = full_training("tf-cuda", "NVIDIA H20")["cost_full"]
    assert math.isnan(unknown.value)
    assert unknown.reason == "the price file has no machine with NVIDIA H20"


def test_owning_is_hours_by_the_purchase_price_spread_over_all_of_them() -> None:
    found = full_training("mlx", "Apple M4", epochs_to_target=2.0, seconds_to_target=1800.0, seconds=3600.0)
    assert found["owning_full"].value == pytest.approx(599 / 6000)
    assert found["owning_to_target"].value == pytest.approx(599 / 12000)
    assert found["owning_full"].unit == "USD"
    for word in ("Mac mini", "599 USD as of 2024-10-29", "2000 hours in each of 3 years", "without electricity"):
        assert word in found["owning_full"].notes[0]
    assert "24 hours at least" in found["cost_full"].reason
    card = full_training("tf-cuda", "NVIDIA GeForce RTX 4090")
    assert math.isnan(card["owning_full"].value)
    assert "--machine-price 'NVIDIA RTX 4090=PRICE USD'" in card["owning_full"].reason
    assert math.isfinite(card["cost_full"].value)


def test_all_costs_are_in_the_one_currency_that_is_asked_for() -> None:
    content = make_result("tf-cuda", phases=("convergence",), device_name="NVIDIA L4")
    prices = PRICES.changed(currency="GBP", owned=(PRICES.owned[0].changed(devices=("NVIDIA L4",)),))
    found = {f.metric: f for f in derive(Result("x.json", format.parse(content)), prices)}
    costs = [found[key] for key in (*PRICED_BY_THE_HOUR, "electricity_to_target", "electricity_full")]
    assert {(figure.unit, figure.reason) for figure in costs} == {("GBP", "")}
    dollars = full_training("tf-cuda", "NVIDIA L4")["cost_full"].value
    assert found["cost_full"].value == pytest.approx(dollars / 1.1172 * 0.8338)
    assert found["cost_full"].notes[1:] == ("1 EUR = 1.1172 USD on 2026-10-30", "1 EUR = 0.8338 GBP on 2026-10-30")
    without = {f.metric: f for f in derive(Result("x.json", format.parse(content)), prices.changed(exchange=()))}
    assert "--exchange-rate 'USD/GBP=RATE'" in without["cost_full"].reason
    assert "--exchange-rate 'EUR/GBP=RATE'" in without["electricity_full"].reason


def test_electricity_is_kilowatt_hours_by_the_first_tariff() -> None:
    energy = {"joules": 7.2e6, "reason": None, "source": "wall-meter", "scope": "whole machine", "samples": 1}
    found = full_training(energy=energy)["electricity_full"]
    assert found.value == pytest.approx(2 * 0.2872 * 1.1172)
    assert (found.unit, found.notes[1]) == ("USD", "wall-meter: whole machine")
    assert found.notes[2] == "1 EUR = 1.1172 USD on 2026-10-30"
    dark = full_training(energy={**energy, "joules": None, "reason": "no permission; try this"})["electricity_full"]
    assert (math.isnan(dark.value), dark.reason) == (True, "no permission; try this")


def test_a_training_that_stopped_early_has_no_cost_of_a_full_one() -> None:
    derived = full_training("tf-cuda", "NVIDIA L4", evaluations=epochs(0.2, 0.5), epochs_to_target=2.0)
    assert derived["cost_full"].reason == "the training ended after 2 of 15 epochs"
    assert math.isfinite(derived["cost_to_target"].value)


def test_the_headline_is_of_the_full_training_where_there_is_one() -> None:
    full = figures(make_result("mlx", phases=FULL_PHASES))
    assert full["headline_throughput"].basis == "full training"
    assert full["headline_throughput"].value == full["full_throughput"].value < full["training_throughput"].value
    quick = figures(make_result("mlx"))
    assert quick["headline_throughput"].basis == "steady window"
    assert quick["headline_throughput"].value == quick["training_throughput"].value
    assert "no full training was run" in quick["headline_throughput"].notes[0]
    failed = figures(make_result("mlx", phases=FULL_PHASES, failed={("convergence", 0): "killed"}))
    assert failed["headline_throughput"].basis == "steady window"
