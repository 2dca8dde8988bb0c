"""What a phase works with in its own process: a backend, data, a meter, and a trainer."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np

from shared_spec.backend import Backend
from shared_spec.data import cifar100
from shared_spec.data.batches import TrainingBatches
from shared_spec.data.dataset import Dataset, Identity
from shared_spec.machine import memory
from shared_spec.machine.energy.meter import Dated, Meter, Unmetered
from shared_spec.machine.energy.open import open_idle_meter, open_meter
from shared_spec.machine.memory import DriverPeak
from shared_spec.measure.clock import monotonic, utc_seconds
from shared_spec.measure.timed_calls import TimedCalls
from shared_spec.measure.timing import Progress
from shared_spec.measure.training import Trainer
from shared_spec.results.format import Ran
from shared_spec.results.quantities import IdleEnergy
from shared_spec.run.job import Job, Setting
from shared_spec.workload import params
from shared_spec.workload.spec import Profile, Spec

RANKS_UNMETERED = (
    "no meter of this system sees all ranks and nothing else; `--power-watts` takes what a wall meter shows"
)


def open_meter_of(setting: Setting) -> Meter:
    """The meter of a phase process."""
    meter: Meter
    if setting.ranks > 1 and setting.power_watts is None:
        meter = Unmetered(RANKS_UNMETERED)
    else:
        meter = open_meter(setting.device, setting.wall_power, monotonic)
    return Dated(meter, utc_seconds)


def idle_meter_of(setting: Setting, meter: Meter) -> Meter:
    """The meter for while the machine does nothing."""
    return Dated(open_idle_meter(meter, setting.wall_power, monotonic), utc_seconds)


def metered(setting: Setting, meter: Meter) -> bool:
    """Whether anything will ever tell the energy of a window: a meter, or the log of a plug later."""
    return meter.source != "none" or (setting.wall_power is not None and setting.wall_power.log is not None)


@dataclass
class Context:
    """What every phase works with.

    Attributes:
        preparation_seconds: data read and initial weights loaded; None where a phase's own clock has that in it.
        loader_bytes: what the data and the batches made ahead of need take of the host's memory; 0 without data.
        timed_calls: what timed calls answered, for the proof.
        trained: the trainer, when it has trained.
        which: the data that was read.
        idle_before: energy of some seconds before the framework was imported; None where nothing meters it.
        driver_peak: the most memory that the device's driver has booked on this process so far.
        evaluated_images: a batch of an evaluation, uint8 [N,S,S,3], where there is a trainer.
        ran_before: when and where processes ran that this one goes on from.
    """

    backend: Backend
    job: Job
    progress: Progress
    preparation_seconds: float | None = None
    loader_bytes: int = 0
    timed_calls: list[TimedCalls] = field(default_factory=list)
    trained: Trainer | None = None
    which: Identity | None = None
    idle_before: IdleEnergy | None = None
    driver_peak: DriverPeak | None = None
    evaluated_images: np.ndarray | None = None
    ran_before: list[Ran] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        return self.job.setting.spec

    @property
    def deadline(self) -> float:
        """Of the clock: when the phase is to end with what it has."""
        started, seconds = self.job.started, self.job.early_end_seconds
        return math.inf if started is None or seconds is None else started + seconds

    @property
    def profile(self) -> Profile:
        return self.job.setting.profile

    def dataset(self) -> Dataset:
        data = cifar100.load(self.job.data, self.spec)
        self.which = Identity(data.source, data.checksums)
        self.loader_bytes = sum(
            array.nbytes for array in (data.train_images, data.train_labels, data.test_images, data.test_labels)
        )
        return data

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Times what comes between the backend and its first step."""
        start = monotonic()
        yield
        self.preparation_seconds = monotonic() - start

    def process_memory(self) -> dict[str, int | None]:
        """Memory of this process by name, bytes."""
        return {**memory.of_process(self.job.setting.device, self.driver_peak), "host_loader": self.loader_bytes}

    @cached_property
    def meter(self) -> Meter:
        return open_meter_of(self.job.setting)

    @property
    def idle_meter(self) -> Meter:
        """The meter for while the machine does nothing."""
        return idle_meter_of(self.job.setting, self.meter)

    @contextlib.contextmanager
    def trainer(self) -> Iterator[Trainer]:
        """A trainer at the initial weights, at this job's batch size and seed."""
        job = self.job
        with self.preparing():
            data = self.dataset()
            self.backend.load_params(params.initial(self.spec))
            images, labels = data.train_images, data.train_labels
            batches = TrainingBatches(self.spec, images, labels, job.batch_size, job.seed, self.backend.group)
        self.loader_bytes += self.spec.measuring.prefetch_batches * batches.batch_bytes
        size = self.spec.training.eval_batch_size
        self.evaluated_images = np.resize(data.test_images[:size], (size, *data.test_images.shape[1:]))
        with batches.prefetched() as prefetched:
            self.trained = Trainer(
                self.backend, self.spec, iter(prefetched), job.batch_size, monotonic, deadline=self.deadline
            )
            yield self.trained
        self.trained.batches = map(batches.batch, count(self.trained.step_number))  # no longer made ahead

    def test_images(self) -> np.ndarray:
        """The test images, uint8 [N,S,S,3]; the backend has the initial weights then."""
        with self.preparing():
            self.backend.load_params(params.initial(self.spec))
            return self.dataset().test_images
