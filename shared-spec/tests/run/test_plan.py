"""What a run has to do, in which order, and how long it will take."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_platform.backend import PLATFORM

from shared_spec.results.measurements import Ceiling, MatmulSize
from shared_spec.run import phases
from shared_spec.run.job import Setting
from shared_spec.run.pace import Pace
from shared_spec.run.plan import Left, Plan, Planned, in_order
from shared_spec.run.request import Request
from shared_spec.workload.spec import Spec


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def matmuls(n: int, seconds: float) -> Ceiling:
    """What a ceiling phase has measured: one product."""
    return Ceiling(sizes=(MatmulSize(n=n, blocks=((1, seconds),)),), checks=None, unchecked=None)


def request(spec: Spec, *names: str, profile: dict[str, Any] | None = None, **setting: Any) -> Request:
    quick = spec.profiles.quick.changed(**(profile or {}))
    spec = spec.changed(profiles=spec.profiles.changed(quick=quick))
    asked = {"device": "cpu", "engine": "fake", "precision": "fp32", **setting}
    return Request(PLATFORM, Setting(spec, "quick", **asked), phases.chosen(names), Path("results"))


def titles(plan: Plan) -> list[str]:
    return [planned.title for planned in plan.processes]


def test_repeats_take_turns(tiny_spec: Spec) -> None:
    profile = tiny_spec.profiles.full.changed(repeats=2, convergence_repeats=2)
    planned = in_order(profile, phases.chosen(phases.BY_NAME))
    assert [p.title for p in planned] == [
        "conformance", "ceiling", "training 1", "latency 1", "inference 1", "training 2", "latency 2", "inference 2",
        "max_batch", "convergence 1", "convergence 2",
    ]  # fmt: skip
    profile = profile.changed(repeats=1)
    planned = in_order(profile, phases.chosen(["latency", "conformance", "training"]))
    assert [p.title for p in planned] == ["conformance", "training 1", "latency 1"]
    assert Planned(phases.TRAINING, 1).stem == "02-training-1"


def test_ranks_leave_out_what_measures_one_device(tiny_spec: Spec) -> None:
    asked = request(tiny_spec, *phases.BY_NAME, ranks=2)
    assert [phase.name for phase in asked.planned_phases] == ["conformance", "ceiling", "training", "convergence"]
    assert len(request(tiny_spec, *phases.BY_NAME).planned_phases) == 7


def test_the_global_batch_grows_in_weak_scaling_alone(tiny_spec: Spec) -> None:
    asked = request(tiny_spec, "training", ranks=3)
    assert (asked.batch_size, replace(asked, scaling="weak").batch_size) == (4, 12)


def test_estimates_grow_with_slower_devices(standard_spec: Spec) -> None:
    for phase in phases.PHASES:
        fast, slow = (phase.estimate(Pace(standard_spec, standard_spec.profiles.quick, rate)) for rate in (1e14, 1e9))
        assert fast < slow or phase is phases.CEILING


@pytest.mark.parametrize(
    ("phase", "programs"),
    [
        (phases.CONFORMANCE, 2), (phases.TRAINING, 1), (phases.LATENCY, 0.5), (phases.INFERENCE, 8 * 0.25),
        (phases.CEILING, 0), (phases.MAX_BATCH, 12), (phases.CONVERGENCE, 1.25),
    ],
)  # fmt: skip
def test_estimates_hold_what_the_framework_compiles(tiny_spec: Spec, phase: phases.Phase, programs: float) -> None:
    quick = tiny_spec.profiles.quick.changed(inference_max_batch=64)
    without, with_it = (phase.estimate(Pace(tiny_spec, quick, 1e12, seconds)) for seconds in (0.0, 40.0))
    assert with_it - without == pytest.approx(40.0 * programs)


def test_the_estimates_are_those_of_the_standard_workload_on_a_known_device(standard_spec: Spec) -> None:
    pace = Pace(standard_spec, standard_spec.profiles.full, 2e13, 10.0)
    seconds = {phase.name: round(phase.estimate(pace), 1) for phase in phases.PHASES}
    assert seconds == {
        "conformance": 45.2, "ceiling": 28.0, "training": 159.7, "latency": 68.0, "inference": 213.6, "max_batch": 314.7,
        "convergence": 1197.8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step_seconds", "compile_seconds", "minutes"),
    [(2.6, 0.0, 10), (2.9, 12.0, 10), (0.01, 0.0, 6)],  # PyTorch and TensorFlow on two cores of an EPYC; MLX on a GPU
)
def test_quick_is_a_matter_of_minutes(
    standard_spec: Spec, step_seconds: float, compile_seconds: float, minutes: int
) -> None:
    flops = 32 * standard_spec.model.training_flops / step_seconds
    quick = standard_spec.profiles.quick
    processes = in_order(quick, phases.chosen(quick.phases))
    counts = [sum(planned.phase is phase for planned in processes) for phase in (phases.TRAINING, phases.LATENCY)]
    assert counts == [3, 3]
    pace = Pace(standard_spec, quick, flops, compile_seconds)
    assert sum(planned.phase.estimate(pace) for planned in processes) < 60 * minutes


def test_proofs_are_part_of_the_estimates(standard_spec: Spec) -> None:
    pace = Pace(standard_spec, standard_spec.profiles.quick, 1e12)
    looked_at = sum(1 << i for i in range(6)) * phases.INFERENCE_LOOKED_AT
    assert pace.proof(looked_at) == pytest.approx(3.0 + looked_at * 9.2e9 / 1e12, rel=0.01)
    for phase in (phases.CEILING, phases.TRAINING, phases.LATENCY, phases.INFERENCE, phases.CONVERGENCE):
        assert phase.proof is not None
        assert phase.estimate(pace) > pace.start() + pace.proof()


def test_repeats_that_ended_too_far_apart_are_named(tiny_spec: Spec) -> None:
    plan = Plan(request(tiny_spec, "training", "latency", profile={"repeats": 3, "max_repeats": 3}))
    figures = {"training": (100.0, 100.1, 100.2), "latency": (1.0, 2.0, 3.0)}

    def figure(planned: Planned) -> float:
        return figures[planned.phase.name][planned.repeat]

    assert plan.wide_intervals(figure) == {}  # they have not ended
    ended(plan)
    assert plan.wide_intervals(figure) == {"latency": pytest.approx(2 * 4.303 / 3**0.5 / 2)}


def test_time_left_is_told_from_the_estimate_first_and_from_the_speed_then(tiny_spec: Spec) -> None:
    clock = Clock()
    plan = Plan(request(tiny_spec, "ceiling", "latency", device="gpu"), clock)
    first, second = plan.processes
    estimates = [plan.estimate(planned) for planned in plan.processes]
    assert plan.remaining == sum(estimates)
    plan.begin(first)
    clock.now += 4
    assert plan.left(first, 0.01) == Left(estimates[0] - 4, pytest.approx(estimates[0] - 4 + estimates[1]))
    assert plan.left(first, 0.5) == Left(4, pytest.approx(4 + estimates[1]))
    clock.now += 100
    assert plan.left(first, 0.01) == Left(0, pytest.approx(estimates[1]))
    assert plan.end(first, None) == 104
    assert plan.remaining == estimates[1]
    assert plan.waiting == [second]
    assert plan.kept == []


def test_what_was_seen_corrects_the_estimates(tiny_spec: Spec) -> None:
    clock = Clock()
    asked = request(tiny_spec, "ceiling", "training", device="gpu", profile={"repeats": 2, "max_repeats": 2})
    plan = Plan(asked, clock)
    ceiling, first, second = plan.processes
    plan.begin(ceiling)
    plan.end(ceiling, matmuls(512, 2 * 512**3 / 1e6))  # 1 MFLOP/s
    setting = asked.setting
    assert plan.estimate(second) == phases.TRAINING.estimate(Pace(setting.spec, setting.profile, 0.5e6))
    plan.begin(first)
    clock.now += 7
    plan.end(first, {})
    assert plan.estimate(second) == 7
    assert plan.kept == [ceiling, first]


def test_a_failure_teaches_nothing(tiny_spec: Spec) -> None:
    clock = Clock()
    plan = Plan(request(tiny_spec, "training", profile={"repeats": 2, "max_repeats": 2}), clock)
    first, second = plan.processes
    before = plan.estimate(second)
    plan.begin(first)
    clock.now += 7
    plan.end(first, None)
    assert plan.estimate(second) == before
    assert plan.waiting == [second]


def ended(plan: Plan, *failed: str) -> None:
    """All that waits ends, well unless `failed` has its title."""
    for planned in plan.waiting:
        plan.begin(planned)
        plan.end(planned, None if planned.title in failed else matmuls(1, 1.0))


def test_repeats_are_added_until_the_interval_is_narrow_enough(tiny_spec: Spec) -> None:
    profile = {"repeats": 2, "max_repeats": 9}
    plan = Plan(request(tiny_spec, "ceiling", "training", "latency", "inference", profile=profile))
    figures = {"training 1": 100.0, "training 2": 100.1, "latency 1": 1.0, "latency 2": 2.0, "latency 3": 1.5}
    assert plan.waiting == plan.processes
    ended(plan)
    (added,) = plan.add_repeats(lambda planned: figures[planned.title])
    assert added.title == "latency 3"
    assert plan.waiting == [added]
    assert plan.estimate(added) == plan.estimate(plan.processes[2])
    ended(plan)
    (added,) = plan.add_repeats(lambda planned: figures[planned.title])
    assert added.title == "latency 4"
    ended(plan)
    figures |= {"latency 1": 1.5, "latency 2": 1.5, "latency 4": 1.5}
    assert plan.add_repeats(lambda planned: figures[planned.title]) == []


def test_one_figure_has_no_interval(tiny_spec: Spec) -> None:
    plan = Plan(request(tiny_spec, "training", "latency", profile={"repeats": 1, "max_repeats": 3}))
    ended(plan)
    assert [planned.title for planned in plan.add_repeats(lambda planned: 1.0)] == ["training 2", "latency 2"]


@pytest.mark.parametrize(("repeats", "most", "failed"), [(1, 1, ()), (2, 2, ()), (2, 5, ("training 1",))])
def test_no_repeat_is_added(tiny_spec: Spec, repeats: int, most: int, failed: tuple[str, ...]) -> None:
    """The profile wants one only, has as many as it may, or one has failed."""
    plan = Plan(request(tiny_spec, "training", profile={"repeats": repeats, "max_repeats": most}))
    ended(plan, *failed)
    assert plan.add_repeats(lambda planned: float(planned.repeat + 1)) == []
