"""The ceiling phase: the device's own rate of square matrix products, by which "fast" is measured."""

from shared_spec.backend import Backend, DeviceWatchdog, OutOfMemory
from shared_spec.measure.clock import Clock
from shared_spec.measure.timing import Progress, Stepper, as_rows, silent
from shared_spec.results.measurements import Ceiling, MatmulSize
from shared_spec.workload.spec import Profile, Spec

LONGEST_SECONDS = 0.5
"""No product is started that would take longer: macOS stops GPU work of seconds while a display is on, and a device
that needs so long for one product has shown its rate."""


def measure_matmul_peak(
    backend: Backend, spec: Spec, profile: Profile, clock: Clock, progress: Progress = silent
) -> Ceiling:
    """Rate of square matrix products of growing size: what this device can do at this precision.

    Raises:
        OutOfMemory, DeviceWatchdog: not even the first size was computed.
    """
    sizes: list[MatmulSize] = []
    spent, n = 0.0, 512
    while spent < profile.ceiling_seconds and n <= 16384:
        progress(min(1.0, spent / profile.ceiling_seconds), f"{n} x {n}")
        stepper = Stepper(lambda n=n: backend.matmul(n), backend.synchronize, spec.measuring, clock)  # type: ignore[misc]
        try:
            stepper.block(1)
            single = stepper.block(1)
            block = stepper.block(max(1, round(profile.ceiling_seconds / 8 / max(single.seconds, 1e-9))))
        except (OutOfMemory, DeviceWatchdog):
            if not sizes:
                raise
            break
        sizes.append(MatmulSize(n=n, blocks=as_rows([block])))
        spent += single.seconds + block.seconds  # not the first, in which a product is compiled
        n *= 2
        if 8 * min(single.seconds, block.step_seconds) > LONGEST_SECONDS:
            break
    return Ceiling(sizes=tuple(sizes), checks=None, unchecked=None)
