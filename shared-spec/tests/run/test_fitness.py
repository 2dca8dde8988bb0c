"""What is refused, warned of and promised to be null before a run starts."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_platform.backend import PLATFORM
from fake_runs import here, only_result, quick
from fake_system import System, container, i7_desktop, rtx_4070_desktop, wsl2

from shared_spec.errors import UserError
from shared_spec.machine import facts, topology
from shared_spec.measure.clock import utc_now
from shared_spec.platform import Platform
from shared_spec.run import fitness
from shared_spec.run.job import Setting
from shared_spec.run.pace import guessed_flops
from shared_spec.workload.spec import Spec

TENSORFLOW = replace(PLATFORM, cuda=("12.9", "XLA compiles on one thread"))


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def setting(spec: Spec, device: str, **more: object) -> Setting:
    return Setting(spec, "quick", **{"device": device, "engine": "fake", "precision": "bf16", **more})  # type: ignore[arg-type]


def cautions(platform: Platform, device: str) -> list[str]:
    return fitness.cautions(platform, device, facts.collect(device))


def test_bf16_without_instructions_for_it_is_refused_unless_asked_for_twice(system: System, tiny_spec: Spec) -> None:
    i7_desktop(system)
    asked = setting(tiny_spec, "cpu")
    with pytest.raises(UserError, match=r"no bfloat16 instructions.*--precision fp32.*--emulated"):
        fitness.refuse(PLATFORM, asked, emulated=False)
    fitness.refuse(PLATFORM, asked, emulated=True)
    fitness.refuse(PLATFORM, replace(asked, precision="fp32"), emulated=False)


def test_bf16_is_refused_where_the_framework_emulates_it(system: System, tiny_spec: Spec) -> None:
    container(system)
    fitness.refuse(PLATFORM, setting(tiny_spec, "cpu"), emulated=False)
    emulating = replace(PLATFORM, emulates_bf16=lambda device: device == "cpu")
    with pytest.raises(UserError, match="in fp32 registers"):
        fitness.refuse(emulating, setting(tiny_spec, "cpu"), emulated=False)


def test_bf16_is_refused_on_a_gpu_before_ampere(system: System, tiny_spec: Spec) -> None:
    rtx_4070_desktop(system)
    fitness.refuse(PLATFORM, setting(tiny_spec, "cuda"), emulated=False)
    system.monkeypatch.setattr(fitness.nvml, "facts", lambda: {"gpu_compute_capability": "7.5"})
    with pytest.raises(UserError, match=r"compute capability 7\.5"):
        fitness.refuse(PLATFORM, setting(tiny_spec, "cuda"), emulated=False)


def test_bf16_is_refused_before_anything_is_written(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "has_bf16", lambda: False)
    out = tmp_path / "r"
    done = quick(spec_file, out, "--precision", "bf16")
    assert (done.returncode, out.exists()) == (1, False)
    assert "add --emulated" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [("--threads", 2), ("--cores", "all")])
def test_cores_are_chosen_for_a_cpu_alone(spec_file: Path, words: tuple[object, ...]) -> None:
    done = here("run", "--spec", spec_file, "--device", "cuda", *words)
    assert done.returncode == 1
    assert "chooses among the cores of a CPU run" in done.stderr


def test_a_driver_older_than_the_libraries_is_told_with_what_it_costs(system: System) -> None:
    rtx_4070_desktop(system)
    (caution,) = cautions(TENSORFLOW, "cuda")
    assert "550.144.03 is of CUDA 12.4" in caution
    assert caution.endswith("XLA compiles on one thread; install driver 575 or later")
    assert cautions(PLATFORM, "cuda") == []


def test_wsl_is_told_and_what_it_makes_null(system: System, tiny_spec: Spec) -> None:
    wsl2(system)
    assert [caution for caution in cautions(TENSORFLOW, "cuda") if "WSL2" in caution]
    environment, state = facts.collect("cuda"), facts.state("cuda", utc_now())
    lacks = fitness.lacks(setting(tiny_spec, "cuda"), environment, state)
    assert [lack.figure for lack in lacks] == [
        "energy of processor packages and memory beside the GPU's",
        "the process's GPU memory as the driver books it", "throttling of the GPU",
    ]  # fmt: skip
    (energy, *_) = fitness.lacks(setting(tiny_spec, "cpu"), environment, state)
    assert "WSL2 has no powercap" in energy.reason


def test_a_quota_is_told_with_the_threads_that_it_leaves(system: System) -> None:
    container(system)
    assert cautions(PLATFORM, "cpu") == [
        "a control group (a container's limit) allows 2 cores' worth of time, so that 2 threads run"
    ]


def test_the_plan_says_what_will_be_null_and_the_command_that_survives_a_restart(
    system: System, tiny_spec: Spec
) -> None:
    i7_desktop(system)
    (lack,) = fitness.lacks(setting(tiny_spec, "cpu"), {}, {})
    assert str(lack).startswith("Not measured here: energy and power: only root may read")
    assert "/etc/udev/rules.d/" in lack.reason


def test_what_will_be_null_is_on_the_screen_before_the_first_phase(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack = fitness.Lack("energy and power", "`mend it` mends it")
    monkeypatch.setattr(fitness, "lacks", lambda *asked: [lack])
    said = quick(spec_file, tmp_path / "r", phases="training").stdout
    assert (
        0 < said.index("Not measured here: energy and power: `mend it` mends it.") < said.index("training 1: started")
    )


def test_ranks_and_a_wall_meter_have_reasons_of_their_own(tiny_spec: Spec) -> None:
    (energy,) = fitness.lacks(setting(tiny_spec, "cpu", ranks=2), {}, {})
    assert "no meter of this system sees all ranks" in energy.reason
    (idle,) = fitness.lacks(setting(tiny_spec, "cpu", power_watts=42.0), {}, {})
    assert idle.figure == "idle power"
    assert fitness.lacks(setting(tiny_spec, "cpu", power_watts="idle=6.5,load=38"), {}, {}) == []
    assert fitness.lacks(setting(tiny_spec, "cpu", power_watts="plug.csv"), {}, {}) == []


def test_what_was_chosen_is_in_the_result(spec_file: Path, tmp_path: Path) -> None:
    assert quick(spec_file, tmp_path / "r", "--threads", 1, phases="ceiling").returncode == 0
    assert only_result(tmp_path / "r")["cpu_threads"] == {"cores": "performance", "asked": 1, "count": 1}


def test_a_gpu_is_planned_for_by_its_name(system: System) -> None:
    rtx_4070_desktop(system)
    assert guessed_flops("cuda", "fp32") == pytest.approx(13.1e12, rel=0.01)
