"""Figures from raw samples, against numbers worked out by hand."""

import math
from typing import Any

import pytest

from aggregate.analysis.derive import derive
from aggregate.analysis.metrics import Figure
from aggregate.analysis.registry import METRICS
from aggregate.analysis.result import Result
from aggregate.analysis.series import BY_BATCH
from aggregate.tests.factory import FULL_PHASES, PRICES, SPEC, make_result
from shared_spec.results import format
from shared_spec.results.stability import drift, step_rate


def figures(content: dict[str, Any]) -> dict[str, Figure]:
    """Figures of a result with one repeat by metric (and batch, for inference)."""
    derived = derive(Result("x.json", format.parse(content)), PRICES)
    return {f.metric if f.batch_size is None else f"{f.metric} {f.batch_size}": f for f in derived}


def with_training(platform: str = "torch-ipex", **measured: Any) -> dict[str, Figure]:
    content = make_result(platform)
    next(o for o in content["phases"] if o["phase"] == "training")["measurements"] |= measured
    return figures(content)


def test_rate_is_all_steps_by_all_seconds_and_no_mean_of_rates() -> None:
    assert step_rate([[1, 1.0], [9, 1.0]]) == 5.0
    assert step_rate([[1, 1.0], [1, 9.0]]) == pytest.approx(0.2)  # a mean of rates would be 0.556
    assert with_training(window_blocks=[[1, 1.0], [1, 9.0]])["training_throughput"].value == pytest.approx(32 * 0.2)


def test_step_times() -> None:
    derived = with_training(step_seconds=[0.001 * i for i in range(1, 12)])
    assert derived["step_median"].value == pytest.approx(6.0)
    assert derived["step_p90"].value == pytest.approx(10.0)
    assert derived["step_p90"].n == 11


def test_a_tail_of_too_few_samples_is_not_given() -> None:
    derived = with_training(step_seconds=[1.0] * 4)
    assert derived["step_median"].value == 1000.0
    assert math.isnan(derived["step_p90"].value)
    assert derived["step_p90"].reason == "4 samples are too few for a p90, which needs 10"
    assert with_training(step_seconds=[1.0])["step_median"].value == 1000.0


def test_latency_percentiles() -> None:
    content = make_result()
    measured = next(o for o in content["phases"] if o["phase"] == "latency")["measurements"]
    measured |= {
        "host_to_host_seconds": [i / 1000 for i in range(1, 102)],
        "device_only_seconds": [0.002, 0.004, 0.003],
    }
    derived = figures(content)
    expected = {
        "latency_median": 51,
        "latency_p90": 91,
        "latency_p95": 96,
        "latency_p99": 100,
        "device_latency_median": 3,
    }
    assert {key: derived[key].value for key in expected} == pytest.approx(expected)
    assert derived["latency_samples"].value == 101


def test_drift_is_positive_when_steps_become_slower() -> None:
    assert drift([[1, 1.0], [1, 1.0], [1, 1.0], [1, 5.0], [1, 1.2], [1, 1.2]]) == pytest.approx(0.2)
    assert drift([[1, 1.0], [1, 2.0]]) is None
    slower = with_training(window_blocks=[[10, 1.0], [10, 1.0], [10, 1.2]])
    assert slower["drift"].value == pytest.approx(20.0)
    assert any("drifted over the window by +20.0%" in note for note in slower["training_throughput"].notes)
    assert "fewer than three blocks" in with_training(window_blocks=[[1, 1.0]])["drift"].reason


def test_unsteady_is_said_beside_the_number() -> None:
    assert any("not become steady" in note for note in with_training(steady=False)["training_throughput"].notes)
    assert not with_training(steady=True)["training_throughput"].notes


def test_host_wait_is_a_share_of_the_window() -> None:
    derived = with_training(window_blocks=[[1, 2.0], [1, 2.0]], window_host_wait_seconds=1.0)
    assert derived["host_wait"].value == pytest.approx(25.0)


def test_a_device_that_waits_for_the_host_is_told_and_marked() -> None:
    derived = with_training(feeding_blocks=[[10, 2.0, 1.8], [10, 2.0, 1.78], [10, 2.0, 1.82]])["device_wait"]
    assert derived.value == pytest.approx(10.0)
    assert derived.n == 30
    assert derived.notes == ("more than 2 %: the host is too slow for this device",)
    for rows in ([[1, 2.0, 1.9]], [[1, 2.0, 1.7], [1, 2.0, 2.1], [1, 2.0, 1.9]]):
        (unsure,) = with_training(feeding_blocks=rows)["device_wait"].notes
        assert "may be chance" in unsure
    fed = with_training(feeding_blocks=[[10, 2.0, 1.97]])["device_wait"]
    assert fed.value == pytest.approx(1.5)
    assert not fed.notes
    assert "1.0 did not record" in with_training(feeding_blocks=None)["device_wait"].reason


def test_what_the_host_did_in_the_window() -> None:
    host = {"wait": 0.1, "transfer": 0.2, "dispatch": 0.6, "drain": 3.0}
    derived = with_training(window_blocks=[[1, 2.0], [1, 2.0]], window_host_seconds=host)
    assert [derived[f"host_{name}"].value for name in ("transfer", "dispatch", "drain")] == pytest.approx([5, 15, 75])
    assert "1.0 did not record" in with_training(window_host_seconds=None)["host_drain"].reason


def test_start_of_a_process_is_the_sum_of_its_parts() -> None:
    content = make_result()
    training = next(o for o in content["phases"] if o["phase"] == "training")
    training["startup"] |= {"process_seconds": 0.5, "backend_seconds": 2.0, "preparation_seconds": 1.0}
    derived = figures(content)["startup"]
    assert derived.value == pytest.approx(3.5)
    assert derived.notes == ("interpreter and harness 0.5 s, framework and model 2.0 s, data and weights 1.0 s",)
    training["startup"] = None
    assert "not recorded" in figures(content)["startup"].reason


def test_repeats_that_end_too_far_apart_say_so() -> None:
    content = make_result(phases=("training",), repeats=3)
    assert not figures(content)["training_throughput"].notes
    for i, outcome in enumerate(content["phases"]):
        outcome["measurements"]["window_blocks"] = [[10, 10.0 * (1 + 0.1 * i)]]
    (note,) = figures(content)["training_throughput"].notes
    assert note.startswith("its 3 repeats ended with a 95 % interval of their mean 4")
    assert note.endswith("more than the 5 % that is asked for")
    content["missing"] = [{"phase": "training", "repeat": 3, "seed": 3}]  # they have not ended
    assert not figures(content)["training_throughput"].notes


def test_spread_and_intervals() -> None:
    derived = with_training(window_blocks=[[10, 10.0], [5, 10.0], [1, 3.0]])
    assert derived["training_variation"].value == pytest.approx(50.0)
    assert any("uneven" in note for note in derived["training_throughput"].notes)
    assert "too few" in derived["training_interval"].reason
    even = with_training(window_blocks=[[10, 1.0], [10, 1.02]] * 10)
    assert 0.2 < even["training_interval"].value < 0.8  # 1 % / sqrt(20) x 1.96
    assert 0 < figures(make_result())["latency_interval"].value < 1


def test_ceiling_and_efficiency() -> None:
    content = make_result()
    sizes = [{"n": 1000, "blocks": [[10, 0.02]]}, {"n": 2000, "blocks": [[1, 0.004], [3, 0.012]]}]
    next(o for o in content["phases"] if o["phase"] == "ceiling")["measurements"]["sizes"] = sizes
    training = next(o for o in content["phases"] if o["phase"] == "training")["measurements"]
    training["window_blocks"] = [[2, 1.0]]  # 64 images/s
    derived = figures(content)
    assert derived["ceiling"].value == pytest.approx(4.0)  # 2 * 2000^3 / 0.004 s
    assert derived["ceiling"].notes == ("at n = 2,000",)
    assert SPEC.model.training_flops == pytest.approx(27.6e9, rel=0.01)
    assert derived["efficiency"].value == pytest.approx(100 * 64 * SPEC.model.training_flops / 4e12)
    assert not derived["efficiency"].notes
    training["window_blocks"] = [[200, 1.0]]
    assert "one of the two may be wrong" in figures(content)["efficiency"].notes[0]


@pytest.mark.parametrize(
    ("platform", "memory", "gib", "note"),
    [
        ("mlx", {"mlx_peak": 2**30, "host_peak": 2**33}, 1.0, "mlx_peak"),
        ("tf-cuda", {"tf_peak": 2**31, "host_peak": 2**33}, 2.0, "tf_peak"),
        ("tf-cuda", {"tf_peak": None, "host_peak": 2**33}, 8.0, "host_peak"),
        ("torch-ipex", {"host_peak": 2**32}, 4.0, "host_peak"),
    ],
)
def test_peak_memory_says_which_it_is(platform: str, memory: dict[str, int | None], gib: float, note: str) -> None:
    derived = with_training(platform, memory=memory)["peak_memory"]
    assert derived.value == gib
    assert derived.notes[0].startswith(note)


def test_unknown_memory_is_no_zero() -> None:
    derived = with_training(memory={"host_peak": None})["peak_memory"]
    assert math.isnan(derived.value)
    assert derived.reason == "the result gives no host_peak"


def test_inference_by_batch_and_best() -> None:
    content = make_result()
    measured = next(o for o in content["phases"] if o["phase"] == "inference")["measurements"]
    measured["sizes"] = measured["sizes"][:3]
    for size, blocks in zip(measured["sizes"], ([[4, 1.0]], [[6, 1.0]], [[2, 1.0]]), strict=True):
        size["window_blocks"] = blocks
    derived = figures(content)
    assert [derived[f"inference_throughput {batch}"].value for batch in (1, 2, 4)] == [4.0, 12.0, 8.0]
    assert derived["inference_best"].value == 12.0
    assert derived["inference_best"].notes == ("at batch 2",)
    assert (derived["inference_reference"].reason, derived["inference_reference"].n) == ("batch 32 was not tried", 0)
    whole = figures(make_result())
    assert whole["inference_reference"].value == whole["inference_throughput 32"].value


def test_conformance_worst_check() -> None:
    content = make_result()
    checks = next(o for o in content["phases"] if o["phase"] == "conformance")["measurements"]["checks"]
    for check, figure in zip(checks, (0.1, 0.5, 0.0, 0.2, 0.9), strict=True):
        check["figure"] = figure * check["bound"]
    derived = figures(content)
    assert (derived["conformance_checks"].value, derived["conformance_checks"].n) == (5, 5)
    assert derived["conformance_worst"].value == pytest.approx(0.9)
    checks[1] |= {"figure": 0.0, "bound": 0.0}
    assert figures(content)["conformance_worst"].value == pytest.approx(0.9)
    checks[0]["figure"] = None
    assert math.isnan(figures(content)["conformance_worst"].value)


PRICED_BY_THE_HOUR = ("cost_to_target", "cost_full", "owning_to_target", "owning_full")


@pytest.mark.parametrize("phase", FULL_PHASES)
def test_what_was_not_measured_has_a_reason_and_no_value(phase: str) -> None:
    absent = figures(make_result("mlx", phases=[p for p in FULL_PHASES if p != phase]))
    failed = figures(make_result("mlx", phases=FULL_PHASES, failed={(phase, 0): "killed by SIGKILL"}))
    for metric in METRICS:
        if phase == "training" and metric.key in ("headline_throughput", "peak_memory", "machine_memory"):
            assert absent[metric.key].basis.startswith("full training")  # the full training stands for it
        elif metric.phase == phase:
            assert math.isnan(absent[metric.key].value)
            assert absent[metric.key].reason == f"the {phase} phase was not run"
            assert math.isnan(failed[metric.key].value)
            assert failed[metric.key].reason == f"the {phase} phase failed: killed by SIGKILL"
        elif metric.key not in ("efficiency", "device_process", "device_process_peak", *PRICED_BY_THE_HOUR, *BY_BATCH):
            assert math.isfinite(absent[metric.key].value), metric.key


def test_efficiency_needs_a_ceiling() -> None:
    assert "was not measured in this run" in figures(make_result(phases=["training"]))["efficiency"].reason


def test_times_too_short_to_divide_by_give_no_figure() -> None:
    derived = with_training(window_blocks=[[10, 5e-324]] * 3, window_host_wait_seconds=0.0)
    for key in ("training_throughput", "efficiency", "drift"):
        assert math.isnan(derived[key].value)
        assert derived[key].reason == "what was recorded gives no finite figure"


def test_every_figure_belongs_to_a_documented_metric() -> None:
    keys = [metric.key for metric in METRICS]
    assert len(set(keys)) == len(keys)
    derived = {f.metric for f in derive(Result("x.json", format.parse(make_result(phases=FULL_PHASES))), PRICES)}
    assert derived == set(keys)


def test_largest_batch_its_speed_its_memory_and_what_ended_the_search() -> None:
    content = make_result("torch-ipex", phases=("max_batch",))
    measured = content["phases"][0]["measurements"]
    measured["tries"][-1]["measurements"] |= {
        "window_blocks": [[5, 2.0]],
        "memory": {"host_peak": 2**33},
        "whole": None,
    }
    derived = figures(content)
    assert (derived["max_batch"].value, derived["max_batch"].n) == (192, 5)
    ended, short = derived["max_batch"].notes
    assert ended == "the search was ended by batch 256: out of memory"
    assert short == derived["max_batch"].uncompared
    assert "a few steps only" in short
    measured["tries"][-1]["measurements"]["whole"] = True
    assert figures(content)["max_batch"].uncompared == ""
    assert derived["max_batch_throughput"].value == pytest.approx(480.0)
    assert derived["max_batch_memory"].value == 8.0
    assert [key for key in derived if key.startswith("batch_throughput")] == [
        f"batch_throughput {batch}" for batch in (32, 64, 128, 192)
    ]


def test_power_is_joules_by_the_seconds_of_the_window() -> None:
    energy = {"joules": 600.0, "reason": None, "source": "nvml-counter", "scope": "the GPU", "samples": 1}
    window: Any = {"window_blocks": [[1, 1.0], [2, 3.0]], "window_host_wait_seconds": 0.0}
    derived = with_training(**window, energy=energy, idle={**energy, "joules": 90.0, "seconds": 3.0})
    assert (derived["power"].value, derived["idle_power"].value) == (150.0, 30.0)
    assert derived["energy_per_image"].value == pytest.approx(600 / 96)
    assert derived["power"].notes == ("nvml-counter: the GPU", "not compared: its window is shorter than 60 s")
    dark = with_training(energy={**energy, "joules": None, "reason": "no meter", "source": "none"})
    assert (math.isnan(dark["power"].value), dark["energy_per_image"].reason) == (True, "no meter")


def test_memory_in_its_parts() -> None:
    memory = {"mlx_peak": 2**30, "mlx_active": 2**29, "mlx_cache": None, "host_peak": 2**31, "host_before_model": 2**28}
    derived = with_training("mlx", memory=memory)
    values = {key: derived[key].value for key in ("device_peak", "device_active", "host_peak", "host_before_model")}
    assert values == {"device_peak": 1.0, "device_active": 0.5, "host_peak": 2.0, "host_before_model": 0.25}
    assert derived["device_cache"].reason == "mlx gives no such figure here"


# The headline, memory and energy: what they are of.


def test_peak_memory_is_the_most_of_everything_the_training_did() -> None:
    content = make_result("mlx", phases=FULL_PHASES)
    for outcome in content["phases"]:
        if outcome["phase"] in ("training", "convergence"):
            gib = 2.5 if outcome["phase"] == "training" else 7.7
            outcome["measurements"]["memory"] |= {"mlx_peak": int(gib * 2**30), "footprint_peak": int(2 * gib * 2**30)}
    derived = figures(content)
    assert derived["peak_memory"].value == pytest.approx(7.7)
    assert derived["peak_memory"].basis == "full training, mlx_peak"
    assert [derived[name].value for name in ("window_memory", "full_memory")] == pytest.approx([2.5, 7.7])
    assert derived["machine_memory"].value == pytest.approx(15.4)
    alone = figures({**content, "phases": [o for o in content["phases"] if o["phase"] != "convergence"]})
    assert alone["peak_memory"].value == pytest.approx(2.5)
    assert alone["peak_memory"].basis == "steady window, mlx_peak"
    assert "no full training was run" in alone["peak_memory"].notes[1]


@pytest.mark.parametrize(
    ("platform", "memory", "gib", "words"),
    [
        ("tf-cuda", {"nvml_process": 2**31, "nvml_process_peak": 2**32, "host_peak": 2**33}, 4.0, "polled"),
        ("tf-cuda", {"nvml_process": 2**31, "tf_peak": 2**30, "host_peak": 2**33}, 2.0, "at the end"),
        ("mlx", {"mlx_peak": 2**30, "footprint_peak": 2**32, "host_peak": 2**29}, 4.0, "footprint"),
        ("torch-ipex", {"host_peak": 2**32}, 4.0, "resident set"),
    ],
)
def test_what_the_training_took_from_the_machine_is_the_drivers_or_the_systems_figure(
    platform: str, memory: dict[str, int], gib: float, words: str
) -> None:
    figure = with_training(platform, memory=memory)["machine_memory"]
    assert figure.value == gib
    assert words in figure.notes[0]
    assert figure.basis == "steady window"  # no name in it: this one compares across platforms
    if platform == "tf-cuda":
        assert "8 GiB of the host's memory besides" in figure.notes[1]


def test_without_the_driver_a_gpus_memory_is_no_figure_of_the_host() -> None:
    figure = with_training("tf-cuda", memory={"tf_peak": 2**30, "host_peak": 2**33})["machine_memory"]
    assert math.isnan(figure.value)


def metered(seconds: float, idle_watts: float = 30.0, **energy: Any) -> dict[str, Figure]:
    """A window of so many seconds at 150 W, 32 images a second."""
    whole = {"joules": 150.0 * seconds, "reason": None, "samples": 1, **energy}
    idle = {**whole, "joules": 3 * idle_watts, "seconds": 3.0, "beside": None}
    window: Any = {"window_blocks": [[1, 1.0]] * int(seconds), "window_host_wait_seconds": 0.0}
    return with_training("tf-cuda", **window, energy=whole, idle={**idle, "joules": 180.0}, idle_before=idle)


BOARD: dict[str, Any] = {"source": "nvml-counter", "scope": "gpu 3, the whole board", "step_seconds": 0.1}


def test_energy_is_gross_and_above_what_the_machine_took_before() -> None:
    derived = metered(64.0, **BOARD)
    assert derived["energy_per_image"].value == pytest.approx(150 / 32)
    assert derived["energy_above_idle"].value == pytest.approx(120 / 32)
    assert (derived["idle_power_before"].value, derived["idle_power"].value) == (30.0, 60.0)
    assert "0.16 %" in derived["power"].notes[1]
    assert derived["power"].basis == "nvml-counter: gpu, the whole board"  # whichever of the machine's GPUs


@pytest.mark.parametrize(
    ("seconds", "step", "words"),
    [(59.0, 0.1, "shorter than 60 s"), (60.0, 2.2, ""), (60.0, 2.5, "25 steps"), (63.0, 2.5, ""), (60.0, None, "")],
)
def test_a_window_too_short_for_its_meter_is_not_compared(seconds: float, step: float | None, words: str) -> None:
    derived = metered(seconds, **{**BOARD, "step_seconds": step})
    for metric in ("power", "energy_per_image", "energy_above_idle"):
        assert bool(derived[metric].uncompared) == bool(words)
        assert words in derived[metric].uncompared
        assert math.isfinite(derived[metric].value)  # it is shown all the same
    assert not derived["idle_power"].uncompared


def part(what: str, joules: float | None) -> dict[str, Any]:
    return {"what": what, "joules": joules, "reason": None if joules is not None else f"no counter for {what}"}


@pytest.mark.parametrize(
    ("energy", "watts", "covers"),
    [
        ({**BOARD, "beside": [part("processor packages", 3200.0), part("memory", 640.0)]}, 210.0, "device, processor and memory"),
        ({**BOARD, "beside": [part("processor packages", 3200.0), part("memory", None)]}, 200.0, "memory not included"),
        ({**BOARD, "beside": [part("processor packages", None), part("memory", None)]}, math.nan, "without the processor"),
        ({**BOARD, "beside": None}, math.nan, "before format 2.0"),
        ({"source": "rapl-package", "scope": "processor packages (1), memory not included",
          "beside": [part("memory", 640.0)]}, 160.0, "device, processor and memory"),
        ({"source": "apple-soc", "scope": "whole chip (CPU, GPU, neural engine, memory), modelled by macOS"}, 150.0,
         "device, processor and memory"),
        ({"source": "apple-soc", "scope": "whole chip (CPU, GPU, neural engine), modelled by macOS"}, 150.0,
         "memory not included"),
        ({"source": "wall-meter", "scope": "whole machine"}, 150.0, "wall-meter"),
    ],
)  # fmt: skip
def test_what_comes_nearest_to_a_macs_meter(energy: dict[str, Any], watts: float, covers: str) -> None:
    derived = metered(64.0, **energy)
    power, per_image = derived["whole_power"], derived["whole_energy_per_image"]
    assert power.value == pytest.approx(watts, nan_ok=True)
    assert per_image.value == pytest.approx(watts / 32, nan_ok=True)
    assert covers in (power.basis or power.reason)
