"""What no schema can see: figures that cannot all be true."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregate.analysis.reading import load
from aggregate.tests.factory import FULL_PHASES, make_result, outcome, save

Change = Callable[[dict[str, Any]], None]


def fingerprint(r: dict[str, Any]) -> None:
    r["spec"]["fingerprint"] = "0" * 64


def spec_content(r: dict[str, Any]) -> None:
    r["spec"]["content"]["training"]["epochs"] += 1


def spec_name(r: dict[str, Any]) -> None:
    r["spec"]["name"] = "other"


def unknown_spec_key(r: dict[str, Any]) -> None:
    r["spec"]["content"]["model"]["dropout"] = 0.1


def contradictory_spec(r: dict[str, Any]) -> None:
    r["spec"]["content"]["model"]["heads"] = 7


def number_beyond_floats(r: dict[str, Any]) -> None:
    r["spec"]["content"]["model"]["dim"] = 6 * 10**400


def initial_seed(r: dict[str, Any]) -> None:
    r["initial_params"]["seed"] += 1


def engine(r: dict[str, Any]) -> None:
    r["engine"] = "another"


def precision(r: dict[str, Any]) -> None:
    r["precision"] = "bf16"


def other_machine(r: dict[str, Any]) -> None:
    r["phases"][-1]["backend"]["device"]["name"] = "another"


def same_repeat(r: dict[str, Any]) -> None:
    r["phases"].append(r["phases"][-1])


def longer_than_its_process(r: dict[str, Any]) -> None:
    outcome(r, "training")["seconds"] = 1.0


def milliseconds_for_seconds(r: dict[str, Any]) -> None:
    measured = outcome(r, "latency")["measurements"]
    measured["host_to_host_seconds"] = [1e3 * t for t in measured["host_to_host_seconds"]]


def waited_longer_than_the_window(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["window_host_wait_seconds"] = 1000.0


def shrunk_batch(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["batch_size"] = 16


def batch_twice(r: dict[str, Any]) -> None:
    sizes = outcome(r, "inference")["measurements"]["sizes"]
    sizes.append(sizes[0])


def passed_without_passing(r: dict[str, Any]) -> None:
    outcome(r, "conformance")["measurements"]["checks"][0]["passed"] = False


def infinite_number(r: dict[str, Any]) -> None:
    outcome(r, "conformance")["measurements"]["checks"][0]["bound"] = 10**400


def target_reached_too_early(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["epochs_to_target"] = 1.0


def time_to_target_of_another_epoch(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["seconds_to_target"] /= 2


def epochs_out_of_order(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["evaluations"].reverse()


def clock_backwards(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["evaluations"][0]["seconds"] = 1e7


def easier_target(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["target_top1"] = 0.1


def more_epochs_than_specified(r: dict[str, Any]) -> None:
    epochs = outcome(r, "convergence")["measurements"]["evaluations"]
    epochs.append({**epochs[-1], "step": 16 * 1562})


def evaluated_at_another_step(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["evaluations"][0]["step"] += 1


def other_length_of_an_epoch(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["steps_per_epoch"] += 1


def larger_batch_than_any_that_fits(r: dict[str, Any]) -> None:
    outcome(r, "max_batch")["measurements"]["batch_size"] = 256


def fits_without_a_measurement(r: dict[str, Any]) -> None:
    outcome(r, "max_batch")["measurements"]["tries"][0]["measurements"] = None


def millijoules_for_joules(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["energy"]["joules"] *= 1000


def passed_beyond_its_bound(r: dict[str, Any]) -> None:
    outcome(r, "conformance")["measurements"]["checks"][0]["figure"] = 10.0


def window_cut_short(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["window_blocks"] = [[1, 3.0]]


def accuracy_between_two_images(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["evaluations"][0]["top1"] = 0.12345678


def images_never_seen(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["images"] += 1


def kilobytes_for_bytes(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["memory"]["host_peak"] //= 1024


def joules_of_another_training(r: dict[str, Any]) -> None:
    outcome(r, "convergence")["measurements"]["energy"]["joules"] += 1


def repeats_said_to_be_far_apart(r: dict[str, Any]) -> None:
    again = copy.deepcopy(outcome(r, "training")) | {"repeat": 1}
    r["phases"].append(again)
    r["wide_intervals"] = {"training": 0.2}


def interval_of_a_phase_without_a_figure(r: dict[str, Any]) -> None:
    r["wide_intervals"] = {"conformance": 0.2}


def neither_joules_nor_reason(r: dict[str, Any]) -> None:
    outcome(r, "training")["measurements"]["energy"]["joules"] = None


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (fingerprint, "/spec/fingerprint"),
        (spec_content, "/spec/fingerprint"),
        (spec_name, "/spec/name"),
        (unknown_spec_key, "/spec/content/model"),
        (contradictory_spec, "/spec/content/model/dim"),
        (number_beyond_floats, "/spec/content/model/dim"),
        (initial_seed, "/initial_params/seed"),
        (engine, "/phases/0/backend/engine"),
        (precision, "/phases/0/backend/precision/requested"),
        (other_machine, "/phases/6/backend/device"),
        (same_repeat, "/phases/7"),
        (longer_than_its_process, "/phases/2/seconds"),
        (milliseconds_for_seconds, "/phases/3/seconds"),
        (waited_longer_than_the_window, "/phases/2/measurements/window_host_wait_seconds"),
        (shrunk_batch, "/phases/2/measurements/batch_size"),
        (batch_twice, "/phases/4/measurements/sizes"),
        (passed_without_passing, "/phases/0/measurements/passed"),
        (infinite_number, "/phases/0/measurements/checks/0/bound"),
        (target_reached_too_early, "/phases/6/measurements/epochs_to_target"),
        (time_to_target_of_another_epoch, "/phases/6/measurements/seconds_to_target"),
        (epochs_out_of_order, "/phases/6/measurements/evaluations"),
        (clock_backwards, "/phases/6/measurements/evaluations"),
        (easier_target, "/phases/6/measurements/target_top1"),
        (more_epochs_than_specified, "/phases/6/measurements/evaluations"),
        (evaluated_at_another_step, "/phases/6/measurements/evaluations"),
        (other_length_of_an_epoch, "/phases/6/measurements/steps_per_epoch"),
        (larger_batch_than_any_that_fits, "/phases/5/measurements/batch_size"),
        (fits_without_a_measurement, "/phases/5/measurements/tries/0/measurements"),
        (millijoules_for_joules, "/phases/2/measurements/energy/joules"),
        (neither_joules_nor_reason, "/phases/2/measurements/energy"),
        (passed_beyond_its_bound, "/phases/0/measurements/checks/0/passed"),
        (window_cut_short, "/phases/2/measurements/window_blocks"),
        (accuracy_between_two_images, "/phases/6/measurements/evaluations/0/top1"),
        (images_never_seen, "/phases/6/measurements/images"),
        (kilobytes_for_bytes, "/phases/2/measurements/memory/host_peak"),
        (repeats_said_to_be_far_apart, "/wide_intervals/training"),
        (interval_of_a_phase_without_a_figure, "/wide_intervals/conformance"),
        (joules_of_another_training, "/phases/6/measurements/energy/joules"),
    ],
)
def test_contradictions_that_no_schema_can_see(tmp_path: Path, change: Change, pointer: str) -> None:
    result = make_result(phases=FULL_PHASES)
    assert load([save(result, tmp_path)]).results
    change(result)
    loaded = load([save(result, tmp_path)])
    assert not loaded.results
    assert pointer in {problem.pointer for problem in loaded.problems}
