"""Files that were made to say more than was measured: each is refused or marked, by `check` and by the report."""

import copy
import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregate.analysis import doubts as doubts_module
from aggregate.analysis.doubts import doubts
from aggregate.analysis.reading import load
from aggregate.tests.factory import FULL_PHASES, call, make_result, outcome, save
from shared_spec.results import format

pytestmark = pytest.mark.usefixtures("unrendered")
Change = Callable[[dict[str, Any]], None]
HONEST = make_result("mlx", phases=FULL_PHASES, precision="bf16")
RESULTS = sorted((Path(__file__).parents[3] / "results").glob("*.json"))
CASES = Path("/work/shared/cases"), Path(__file__).parents[4] / "shared" / "cases"
"""Where the files may lie that were once called fit."""


def measured(result: dict[str, Any], phase: str) -> dict[str, Any]:
    found: dict[str, Any] = outcome(result, phase)["measurements"]
    return found


def faster(blocks: list[list[float]], times: float) -> list[list[float]]:
    """The same steps in less time, so many that the window is no shorter."""
    return [[round(steps * times), seconds] for steps, seconds in blocks]


# --- Issue 20's forged files.


def inference_times_20_above_batch_1(r: dict[str, Any]) -> None:
    for size in measured(r, "inference")["sizes"][1:]:
        size["window_blocks"] = faster(size["window_blocks"], 20)


def inference_times_20_from_batch_16(r: dict[str, Any]) -> None:
    for size in measured(r, "inference")["sizes"][4:]:
        size["window_blocks"] = faster(size["window_blocks"], 20)


def losses_halved(r: dict[str, Any]) -> None:
    trace = measured(r, "training")["loss_trace"]
    measured(r, "training")["loss_trace"] = [loss / 2 for loss in trace]


def losses_of_the_full_training_halved(r: dict[str, Any]) -> None:
    trace = measured(r, "convergence")["loss_trace"]
    measured(r, "convergence")["loss_trace"] = [loss / 2 for loss in trace]


def peak_memory_equal_to_the_weights(r: dict[str, Any]) -> None:
    measured(r, "training")["memory"]["mlx_peak"] = 4 * r["initial_params"]["count"]


def training_times_8(r: dict[str, Any]) -> None:
    window = measured(r, "training")
    window["window_blocks"] = faster(window["window_blocks"], 8)


def whole_training_phase_times_8(r: dict[str, Any]) -> None:
    """All of the phase's own times fit one another; those of other phases do not."""
    phase = measured(r, "training")
    for name in ("window_blocks", "warmup_blocks"):
        phase[name] = faster(phase[name], 8)
    phase["step_seconds"] = [seconds / 8 for seconds in phase["step_seconds"]]
    phase["feeding_blocks"] = [[steps * 8, *seconds] for steps, *seconds in phase["feeding_blocks"]]


def full_training_times_8(r: dict[str, Any]) -> None:
    phase = measured(r, "convergence")
    for name in ("seconds", "evaluation_seconds", "checkpoint_seconds", "first_step_seconds", "seconds_to_target"):
        if phase[name] is not None:
            phase[name] /= 8
    for row in phase["evaluations"]:
        for name in ("seconds", "evaluation_seconds", "checkpoint_seconds"):
            row[name] /= 8


# --- What was called fit.


def in_2999(r: dict[str, Any]) -> None:
    r["created"] = "2999-01-01T00:00:00Z"


def in_1973(r: dict[str, Any]) -> None:
    r["created"] = "1973-01-01T00:00:00Z"


def on_no_day(r: dict[str, Any]) -> None:
    r["created"] = "2026-02-31T12:00:00Z"


def energy_in_the_future(r: dict[str, Any]) -> None:
    measured(r, "training")["energy"]["windows"] = [[4e9, 4e9 + 10]]


def no_instant(r: dict[str, Any]) -> None:
    measured(r, "training")["energy"]["windows"] = [[1e11, 1e11]]


def right_from_the_first_epoch(r: dict[str, Any]) -> None:
    phase = measured(r, "convergence")
    for row in phase["evaluations"]:
        row["top1"] = 1.0
    first = phase["evaluations"][0]
    phase["epochs_to_target"], phase["seconds_to_target"] = first["step"] / phase["steps_per_epoch"], first["seconds"]


def host_longer_than_the_window(r: dict[str, Any]) -> None:
    measured(r, "training")["window_host_seconds"]["drain"] *= 2


def latency_beyond_the_ceiling(r: dict[str, Any]) -> None:
    for size in measured(r, "ceiling")["sizes"]:
        size["blocks"] = [[steps, seconds * 25] for steps, seconds in size["blocks"]]


def no_losses(r: dict[str, Any]) -> None:
    measured(r, "training")["loss_trace"] = []


def other_data(r: dict[str, Any]) -> None:
    r["data"]["checksums"]["train"] = "0" * 32


def bounds_of_1e300(r: dict[str, Any]) -> None:
    for check in measured(r, "conformance")["checks"]:
        check["bound"] = 1e300


def loose_bound_of_what_was_timed(r: dict[str, Any]) -> None:
    check = {"name": "timed logits, batch 8", "passed": True, "figure": 0.9, "bound": 1.0, "detail": "error"}
    measured(r, "inference")["checks"] = [check]


def figure_below_zero(r: dict[str, Any]) -> None:
    measured(r, "conformance")["checks"][0]["figure"] = -1e9


def a_million_million_processors(r: dict[str, Any]) -> None:
    for one in r["phases"]:
        one["backend"]["device"]["count"] = 10**12


def a_million_million_cores(r: dict[str, Any]) -> None:
    r["environment"]["cpu_physical_cores"] = 10**12


def images_beyond_all_memory(r: dict[str, Any]) -> None:
    measured(r, "inference")["sizes"][-1]["batch_size"] = 10**12


def images_beyond_all_memory_and_a_profile_that_asks_for_them(r: dict[str, Any]) -> None:
    r["profile"]["content"]["inference_max_batch"] = 2**19
    measured(r, "inference")["sizes"][-1]["batch_size"] = 2**19


def largest_batch_beyond_all_memory(r: dict[str, Any]) -> None:
    search = measured(r, "max_batch")
    search["batch_size"] = search["tries"][-1]["batch_size"] = 10**12


def restarts_without_end(r: dict[str, Any]) -> None:
    r["resumed"] = 10**30


def many_restarts(r: dict[str, Any]) -> None:
    r["resumed"] = 10**12


def blank_device(r: dict[str, Any]) -> None:
    for one in r["phases"]:
        one["backend"]["device"]["name"] = " " * 50


def changed_checkout(r: dict[str, Any]) -> None:
    r["software"]["git_clean"] = False


def more_right_than_there_are(r: dict[str, Any]) -> None:
    counted(r)
    measured(r, "convergence")["evaluations"][3]["class_right"][7] = 101


def accuracy_that_its_counts_do_not_make(r: dict[str, Any]) -> None:
    counted(r)
    measured(r, "convergence")["evaluations"][3]["top1"] = 0.3333


def fewer_images_than_the_spec(r: dict[str, Any]) -> None:
    counted(r)
    measured(r, "convergence")["class_images"] = [99] * 100


def no_images_at_all(r: dict[str, Any]) -> None:
    counted(r)
    phase = measured(r, "convergence")
    phase["class_images"] = [0] * 100
    for row in phase["evaluations"]:
        row["class_right"] = [0] * 100


def counted(r: dict[str, Any]) -> None:
    """Evaluations counted by class, as they are since format 1.2."""
    phase = measured(r, "convergence")
    phase["class_images"] = [100] * 100
    for row in phase["evaluations"]:
        each, more = divmod(round(row["top1"] * 10_000), 100)
        row["class_right"] = [each + (i < more) for i in range(100)]


def nothing_measured(r: dict[str, Any]) -> None:
    r["phases"] = []


def conformance_alone(r: dict[str, Any]) -> None:
    r["phases"] = [outcome(r, "conformance")]


MARKED: dict[Change, str] = {
    inference_times_20_above_batch_1: "inference of 2 images took",
    inference_times_20_from_batch_16: "inference of 16 images took",
    peak_memory_equal_to_the_weights: "the training peaked at 83 MiB (mlx_peak): weights, gradients, moments",
    training_times_8: "a step of the training's window took",
    whole_training_phase_times_8: "the search for the largest batch",
    full_training_times_8: "a step of the full training took",
    in_2999: "it is dated 2999-01-01, in the future",
    in_1973: "it is dated 1973-01-01, before there was this benchmark",
    on_no_day: "in the future",
    energy_in_the_future: "the energy of its training is dated 2096",
    no_instant: "in the future",
    right_from_the_first_epoch: "is 100.0%, where trainings of this workload have",
    host_longer_than_the_window: "the host spent",
    latency_beyond_the_ceiling: "times the operations a second of the measured matrix products",
}
"""They stand in tables, and are marked there."""
UNPROVED: dict[Change, str] = {
    losses_halved: "training, seed 0: its losses are not the reference's (0.5",
    losses_of_the_full_training_halved: "convergence, seed 0: its losses are not the reference's (0.5",
    no_losses: "no loss was kept",
    other_data: "the checksums of its data are not those of cifar-100",
    bounds_of_1e300: "parameters has a bound of 1e+300 where this workload's is 0",
    loose_bound_of_what_was_timed: "timed logits, batch 8 has a bound of 1 where",
}
"""They stand apart, as what failed conformance."""
REFUSED: dict[Change, str] = {
    figure_below_zero: "has a figure or a bound below 0",
    a_million_million_processors: "is 1,000,000,000,000, and one process drives 4,096 at most",
    a_million_million_cores: "which no machine has",
    images_beyond_all_memory: "the profile has 1, 2, 4 ... 64",
    images_beyond_all_memory_and_a_profile_that_asks_for_them: "so many images alone exceed",
    largest_batch_beyond_all_memory: "so many images alone exceed",
    restarts_without_end: "/resumed",
    many_restarts: "no run was taken up so often",
    blank_device: "'' is too short",
    more_right_than_there_are: "does not fit the number of images of each class",
    accuracy_that_its_counts_do_not_make: "the classes' counts make",
    fewer_images_than_the_spec: "add up to 9900, not to the 10000 of the spec",
    no_images_at_all: "add up to 0",
}
"""They are in no table."""
UNFIT: dict[Change, str] = {
    changed_checkout: "a checkout with changes",
    nothing_measured: "no phase but conformance came to its end",
    conformance_alone: "no phase but conformance came to its end",
}
"""Nothing is wrong with what they say."""


def forged(change: Change) -> dict[str, Any]:
    result = copy.deepcopy(HONEST)
    change(result)
    return result


def name(change: Change) -> str:
    return getattr(change, "__name__", "")


def test_an_honest_result_is_fit_and_unmarked(tmp_path: Path) -> None:
    counted(honest := copy.deepcopy(HONEST))
    path = save(honest, tmp_path)
    assert call("check", path).exit_code == 0, call("check", path).stdout
    assert load([path]).results[0].doubts == []


@pytest.mark.parametrize("change", [*MARKED, *UNPROVED, *REFUSED, *UNFIT], ids=name)
def test_check_is_not_talked_into_it(tmp_path: Path, change: Change) -> None:
    done = call("check", save(forged(change), tmp_path))
    assert done.exit_code == 1, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("no")]
    assert any((MARKED | UNPROVED | REFUSED | UNFIT)[change] in line for line in lines), done.stdout
    assert done.stdout.endswith("Not fit to be published.\n")


@pytest.mark.parametrize("change", MARKED, ids=name)
def test_the_report_marks_what_is_hard_to_believe(tmp_path: Path, change: Change) -> None:
    done = call(save(forged(change), tmp_path), "--out", tmp_path / "report", "--fail-on-warning")
    assert done.exit_code == 3, done.output
    for name in ("index.html", "comparison.md"):
        text = (tmp_path / "report" / name).read_text().replace("\\", "").replace("&#39;", "'")
        assert MARKED[change] in text or re.search(r"hard to believe: .*; \d+ more: see check", text)


@pytest.mark.parametrize("change", UNPROVED, ids=name)
def test_the_report_sets_apart_what_is_not_proved(tmp_path: Path, change: Change) -> None:
    save(HONEST, tmp_path, "honest.json")
    other = forged(change) | {"run_id": "f" * 16}
    measured(other, "latency")["host_to_host_seconds"][0] *= 1.01  # another run's samples
    save(other, tmp_path, "other.json")
    done = call(tmp_path, "--out", tmp_path / "report", "--format", "json")
    assert done.exit_code == 0, done.stderr
    statuses = {figure["file"]: figure["conformance"] for figure in json.loads(done.stdout)["figures"]}
    assert statuses == {"honest.json": "passed", "other.json": "failed"}
    assert UNPROVED[change] in json.dumps(json.loads(done.stdout)["warnings"], ensure_ascii=False)


@pytest.mark.parametrize("change", REFUSED, ids=name)
def test_the_report_has_nothing_of_what_cannot_be(tmp_path: Path, change: Change) -> None:
    done = call(save(forged(change), tmp_path), "--out", tmp_path / "report")
    assert done.exit_code == 2
    assert REFUSED[change] in done.stderr


def originals() -> list[Path]:
    return sorted(next((folder for folder in CASES if folder.is_dir()), CASES[0]).glob("*.json"))


@pytest.mark.skipif(
    not originals(), reason="the files that were called fit lie beside the checkout, and there are none"
)
@pytest.mark.parametrize("path", originals(), ids=lambda path: path.stem)
def test_files_that_were_called_fit(tmp_path: Path, path: Path) -> None:
    done = call("check", path)
    assert (done.exit_code, done.exception if not isinstance(done.exception, SystemExit) else None) == (1, None)
    assert done.stdout.endswith("Not fit to be published.\n")
    report = call(path, "--out", tmp_path / "report")
    assert report.exit_code in (0, 2)
    assert isinstance(report.exception, SystemExit | None)


def test_no_committed_result_is_doubted() -> None:
    """The marks are beyond all that honest runs have shown."""
    loaded = load(RESULTS)
    assert {
        result.file: [*result.doubts, *result.objections]
        for result in loaded.results
        if result.doubts or result.objections
    } == {}


def test_clocks_may_differ_by_a_day() -> None:
    result = format.parse(HONEST)
    made = dt.datetime.fromisoformat(result.created)
    assert not [each for each in doubts(result, made - doubts_module.CLOCKS_DIFFER) if each.startswith("it is dated")]
    assert "it is dated 2026-11-01, in the future" in doubts(result, made - dt.timedelta(days=1, seconds=1))
