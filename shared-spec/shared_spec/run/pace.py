"""How fast a machine is thought to be: what the estimates of time are made from."""

from dataclasses import dataclass

import numpy as np

from shared_spec.machine import devices, hardware, nvml
from shared_spec.machine.probe import command_output
from shared_spec.measure.clock import monotonic
from shared_spec.workload.spec import Profile, Spec

START_SECONDS = 10.0
"""What a phase process takes before it measures anything: interpreter, framework, data."""
PROOF_SECONDS = 3.0
"""What the proof of a phase takes on the host: parameters loaded anew, moments in float64."""


@dataclass(frozen=True)
class Pace:
    """How fast a machine is thought to be; for the plan and the time left, and for nothing else.

    Attributes:
        flops: floating-point operations per second.
        compile_seconds: what the framework takes to compile a training step.
    """

    spec: Spec
    profile: Profile
    flops: float
    compile_seconds: float = 0.0

    @property
    def training_image(self) -> float:
        """Seconds of one image's share of a training step."""
        return self.spec.model.training_flops / self.flops

    @property
    def step(self) -> float:
        """Seconds of a training step at the spec's batch size."""
        return self.spec.training.batch_size * self.training_image

    @property
    def image(self) -> float:
        """Seconds of one image's inference."""
        return self.spec.model.forward_flops / self.flops

    @property
    def warmup_steps(self) -> int:
        """Steps until a measuring loop is steady, at the least."""
        return 1 + self.spec.measuring.steady_blocks * self.spec.measuring.block_steps

    def proof(self, images: float = 0, programs: float = 0.0) -> float:
        """Seconds of looking at what was timed: so many inferences, and programs that only the proof compiles."""
        return PROOF_SECONDS + images * self.image + programs * self.compile_seconds

    def start(self, programs: float = 0.0) -> float:
        """Seconds until a process that compiles so many training steps measures; a forward pass is a quarter of one."""
        return START_SECONDS + programs * self.compile_seconds


def guessed_flops(device: str, precision: str) -> float:
    """FLOP/s of training to plan with before the ceiling phase has measured any.

    A GPU is known by its name; what a CPU does is seen in a product in NumPy.
    """
    if device == "cuda":
        return devices.training_flops(nvml.facts()["gpu_name"], precision)
    if device == "gpu":
        chip = command_output("sysctl", "-n", "machdep.cpu.brand_string")
        return devices.training_flops(chip, precision, hardware.mac_gpu_cores())
    n, seconds = 1024, []
    a = np.ones((n, n), np.float32)
    for _ in range(4):  # the first wakes the threads; of a busy machine the best tells most
        start = monotonic()
        a @ a
        seconds.append(monotonic() - start)
    return 1.4 * float(n) ** 3 / min(seconds[1:])
