"""What of a machine speaks against a run, what it makes of it, and what cannot be measured there: said before it starts."""

from dataclasses import dataclass
from math import floor
from typing import Any

from shared_spec.errors import UserError
from shared_spec.machine import nvml, topology
from shared_spec.machine.energy.open import IDLE_UNKNOWN
from shared_spec.platform import Platform
from shared_spec.results.quantities import Energy
from shared_spec.run.context import open_meter_of
from shared_spec.run.job import Setting

FIRST_WITH_BF16 = (8, 0)
"""Compute capability from which NVIDIA's GPUs have instructions for bfloat16."""
CUDA_DRIVERS = {"12.9": "575", "13.0": "580"}
"""The first driver of a version of CUDA (NVIDIA, CUDA Toolkit release notes, table 3)."""


@dataclass(frozen=True)
class Lack:
    """A figure that will be null, and why; in the reason, between backticks, stands the one command that helps."""

    figure: str
    reason: str

    def __str__(self) -> str:
        return f"Not measured here: {self.figure}: {self.reason}."


def without_bf16(platform: Platform, device: str) -> str | None:
    """What has no instructions for bf16 there, so that it would be emulated; None where it is not known to have none."""
    if device == "cpu":
        if platform.emulates_bf16(device):
            return f"{platform.name} computes bf16 on a CPU in fp32 registers"
        return "this processor has no bfloat16 instructions" if topology.has_bf16() is False else None
    capability = nvml.facts()["gpu_compute_capability"] if device == "cuda" else None
    if capability is not None and _version(capability) < FIRST_WITH_BF16:
        return f"this GPU (compute capability {capability}) has no bfloat16 instructions"
    return None


def refuse(platform: Platform, setting: Setting, emulated: bool) -> None:
    """Raise UserError where a run makes no sense on this machine.

    Args:
        emulated: the user insists on emulated bf16.
    """
    if setting.device != "cpu" and (setting.threads is not None or setting.cores == "all"):
        option = "--threads" if setting.threads is not None else "--cores all"
        raise UserError(f"{option}: chooses among the cores of a CPU run; leave it out on --device {setting.device}.")
    setting.compute_threads(platform.world())
    if setting.precision != "bf16" or emulated:
        return
    if reason := without_bf16(platform, setting.device):
        raise UserError(
            f"--precision bf16: {reason}, and emulated it is many times slower than fp32; choose --precision fp32, or "
            "add --emulated to measure it all the same."
        )


def cautions(platform: Platform, device: str, environment: dict[str, Any]) -> list[str]:
    """What a reader of the result, and whoever waits for it, should know of the machine, a sentence each."""
    sentences = []
    version, quota = environment.get("gpu_driver_cuda"), environment.get("cpu_quota_cores")
    if device == "cuda" and platform.cuda and version and _version(version) < _version(platform.cuda[0]):
        sentences.append(
            f"the NVIDIA driver {environment.get('gpu_driver')} is of CUDA {version}, the libraries are of "
            f"{platform.cuda[0]}: {platform.cuda[1]}; install driver {CUDA_DRIVERS[platform.cuda[0]]} or later"
        )
    if device == "cpu" and quota is not None and quota < (environment.get("cpu_physical_cores") or 0):
        sentences.append(
            f"a control group (a container's limit) allows {quota:g} cores' worth of time, so that "
            f"{max(1, floor(quota))} threads run"
        )
    if environment.get("wsl"):
        sentences.append("measured under WSL2, where Windows shares the machine and cannot be watched")
    return sentences


def lacks(setting: Setting, environment: dict[str, Any], state: dict[str, Any]) -> list[Lack]:
    """What will be null on this machine, and why.

    Args:
        environment, state: facts.collect and facts.state.
    """
    found, device, wsl = [], setting.device, environment.get("wsl")
    power, reading = setting.wall_power, _reading(setting)
    if reading.source == "none" and reading.reason is not None:
        in_wsl = "; WSL2 has no powercap: a wall meter's figure can be given with `--power-watts`" if wsl else ""
        found.append(Lack("energy and power", reading.reason + (in_wsl if device == "cpu" else "")))
    elif power is not None and power.idle is None and power.log is None:
        found.append(Lack("idle power", IDLE_UNKNOWN))
    dark = [part for part in reading.beside or () if part.reason is not None]
    if dark:
        metered = "processor's" if device == "cpu" else "GPU's"
        parts = " and ".join(part.what for part in dark)
        found.append(Lack(f"energy of {parts} beside the {metered}", str(dark[0].reason)))
    if device == "cuda" and wsl:
        found.append(
            Lack("the process's GPU memory as the driver books it", "WSL2 does not tell; the framework's peak is")
        )
    if device == "cuda" and environment.get("gpu_name") and state.get("gpu_throttle_reasons") is None:
        found.append(Lack("throttling of the GPU", "its driver does not tell the reasons"))
    return found


def _reading(setting: Setting) -> Energy:
    """What the meter of a phase says of no time at all: its source, and what it cannot tell."""
    if setting.wall_power is not None and setting.wall_power.log is not None:
        return Energy(joules=0.0, reason=None, source="wall-meter", scope="the log of a plug, later", samples=0)
    meter = open_meter_of(setting)
    meter.start()
    return meter.stop()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
