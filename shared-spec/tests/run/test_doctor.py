"""What the doctor says of machines that are not at hand."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_platform.backend import PLATFORM
from fake_runs import here
from fake_system import System, container, i7_desktop, m4_mini, rtx_4070_desktop, wsl2

from shared_spec.platform import Platform
from shared_spec.run import doctor, phases
from shared_spec.run.doctor import Finding, examine, look, told
from shared_spec.run.job import Setting
from shared_spec.run.request import Request
from shared_spec.workload.spec import Spec

MLX = replace(PLATFORM, name="mlx", make_target="mlx")
TENSORFLOW = replace(
    PLATFORM,
    name="tf-cuda",
    make_target="cuda",
    cuda=("12.9", "XLA compiles on one thread, so that first steps take minutes"),
)
TORCH = replace(PLATFORM, make_target="ipex")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setenv("CIFAR100_DIR", "synthetic")
    return System(tmp_path, monkeypatch)


def backend(framework: str, name: str, kind: str, effective: str = "fp32") -> dict[str, Any]:
    return {
        "framework": framework, "framework_version": "1.0", "compile_mode": "compiled",
        "device": {"name": name, "kind": kind, "count": 1},
        "precision": {"requested": effective, "effective": effective},
    }  # fmt: skip


def findings(
    system: System,
    spec: Spec,
    platform: Platform,
    device: str,
    described: dict[str, Any] | str,
    precision: str = "fp32",
) -> list[Finding]:
    system.monkeypatch.setattr(doctor, "described_apart", lambda request: described)
    setting = Setting(spec, "full", device=device, engine="fake", precision=precision)
    chosen = phases.chosen(setting.profile.phases)
    return examine(look(Request(platform, setting, chosen, system.root / "results")))


def on_m4_mini(system: System, spec: Spec) -> list[Finding]:
    m4_mini(system)
    return findings(system, spec, MLX, "gpu", backend("mlx", "Apple M4", "gpu"))


def on_rtx_4070(system: System, spec: Spec) -> list[Finding]:
    rtx_4070_desktop(system)
    return findings(system, spec, TENSORFLOW, "cuda", backend("tensorflow", "NVIDIA GeForce RTX 4070", "cuda"))


def on_wsl2(system: System, spec: Spec) -> list[Finding]:
    wsl2(system)
    return findings(system, spec, TENSORFLOW, "cuda", backend("tensorflow", "NVIDIA GeForce RTX 3080", "cuda"))


def on_i7(system: System, spec: Spec) -> list[Finding]:
    i7_desktop(system)
    return findings(system, spec, TORCH, "cpu", backend("torch", "Intel(R) Core(TM) i7-14700K", "cpu"))


def in_container(system: System, spec: Spec) -> list[Finding]:
    container(system)
    return findings(system, spec, TORCH, "cpu", "it cannot be imported")


MACHINES: dict[str, tuple[Callable[[System, Spec], list[Finding]], list[str]]] = {
    "M4 mini, 16 GB": (
        on_m4_mini,
        [
            "ok    device: Apple M4 (gpu)",
            "ok    processor: Apple M4, 4 performance and 6 efficiency cores",
            "ok    memory: 9.0 GiB free of 16.0 GiB",
            "note  state: the machine was set to save power",
            "          $ sudo pmset -a lowpowermode 0",
            "null  energy and power: the meter of Apple Silicon is not installed",
            "          $ pip install zeus-apple-silicon",
            "ok    sleep: caffeinate keeps the machine awake",
            "ok    time: full takes about 11 h",
        ],
    ),
    "RTX 4070 desktop": (
        on_rtx_4070,
        [
            "ok    driver: 550.144.03, of CUDA 12.4",
            "note  system: the NVIDIA driver 550.144.03 is of CUDA 12.4, the libraries are of 12.9: XLA compiles on one "
            "thread, so that first steps take minutes; install driver 575 or later",
            "ok    GPU memory: 11.0 GiB free of 12.0 GiB",
            "note  display: one hangs on this GPU",
            "ok    energy: a meter answers",
            "ok    sleep: systemd-inhibit keeps the machine awake",
        ],
    ),
    "WSL2": (
        on_wsl2,
        [
            "note  system: measured under WSL2, where Windows shares the machine",
            "note  GPU memory: 3.0 GiB free of 10.0 GiB: close other programs",
            "null  the process's GPU memory as the driver books it: WSL2 does not tell",
            "null  throttling of the GPU: its driver does not tell the reasons",
            "note  sleep: nothing here keeps the machine awake",
        ],
    ),
    "Core i7-14700K": (
        on_i7,
        [
            "ok    processor: 8 performance and 12 efficiency cores; 8 threads would compute",
            "note  precision: bf16 would be emulated: this processor has no bfloat16 instructions; measure in fp32",
            "note  power mode: the processor is told to prefer balance_power to speed",
            "          $ powerprofilesctl set performance",
            "null  energy and power: only root may read the processor's energy counters; the command below lets everybody",
            "          $ echo 'ACTION==",
        ],
    ),
    "container": (
        in_container,
        [
            "BAD   framework: it cannot be imported",
            "          $ make setup-ipex",
            "ok    processor: cores of one kind; 2 threads would compute",
            "note  memory: 4.0 GiB by the limit of a control group, of 64.0 GiB",
            "null  energy and power: Linux shows no energy counters of the processor",
            "null  data: the synthetic stand-in",
        ],
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_doctor_tells_of_a_machine_what_is_amiss_and_what_mends_it(
    machine: str, system: System, standard_spec: Spec
) -> None:
    visit, expected = MACHINES[machine]
    lines = told(visit(system, standard_spec)).splitlines()
    for start in expected:
        assert any(line.startswith(start) for line in lines), f"{start!r} is not in\n" + "\n".join(lines)


def test_bf16_where_it_is_emulated_is_a_fault_when_it_is_asked_for(system: System, standard_spec: Spec) -> None:
    i7_desktop(system)
    described = backend("torch", "Intel(R) Core(TM) i7-14700K", "cpu", "bf16")
    states = {f.check: f.state for f in findings(system, standard_spec, TORCH, "cpu", described, "bf16")}
    assert states["precision"] == "bad"


def test_the_doctor_as_a_command(spec_file: Path, tmp_path: Path) -> None:
    done = here("doctor", "--spec", spec_file, "--data", "synthetic", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "framework: fake 1.0" in done.stdout
    assert "null  data: the synthetic stand-in" in done.stdout
    done = here("doctor", "--spec", spec_file, "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "A run would fail or mislead here: data." in done.stderr


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            subprocess.CompletedProcess([], 1, "", "Error: bench.Backend cannot be imported\n"),
            "bench.Backend cannot be",
        ),
        (subprocess.CompletedProcess([], -6, "", ""), "it ended with status -6"),
        (subprocess.TimeoutExpired("x", 60), "it does not start within 60 s (TimeoutExpired)"),
        (subprocess.CompletedProcess([], 0, "no JSON", ""), "JSONDecodeError"),
    ],
)
def test_a_framework_that_does_not_start_is_a_sentence(
    outcome: Any, words: str, tiny_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(doctor.subprocess, "run", run)
    setting = Setting(tiny_spec, "quick", device="cpu", engine="fake", precision="fp32")
    described = doctor.described_apart(Request(PLATFORM, setting, (), Path("results")))
    assert words in str(described)
