"""Training to the target: the loop, its clocks and its checkpoints.

The clock starts before the first training image is touched and never pauses: evaluation, compilation and what a
checkpoint holds up are in it and stand beside it; a thread writes the checkpoint while training goes on. Only the time
in which no process ran (after a kill, until the next start) is left out, and work that a kill had undone is counted once.

With several ranks all of them run this loop in step. Rank 0 alone has the checkpoint, and its record and its clock are
the ones that count; a training may go on with another number of ranks, as all that it depends on is in the checkpoint.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shared_spec import ranks
from shared_spec.backend import Backend, Handle
from shared_spec.data.batches import TrainingBatches
from shared_spec.data.dataset import CLASSES, Dataset
from shared_spec.machine.energy.meter import Meter
from shared_spec.measure.checkpoint import Record, Writer, load_checkpoint
from shared_spec.measure.clock import Clock, utc_text
from shared_spec.measure.timing import Progress, silent
from shared_spec.measure.training import Trainer
from shared_spec.ranks import Group
from shared_spec.results import measurements
from shared_spec.results.format import Ran
from shared_spec.results.measurements import Evaluation, RanksConvergence, Stop
from shared_spec.results.quantities import Span, finite
from shared_spec.workload import params
from shared_spec.workload.spec import Spec

FOLLOWS_SECONDS = 0.1
"""Two windows of the meter so close to one another are of one process, which reads it and starts it anew."""


def evaluate(
    backend: Backend, data: Dataset, batch_size: int, dispatched: Callable[[Handle], None] = lambda handle: None
) -> tuple[float, float, np.ndarray]:
    """Top-1 accuracy and mean cross entropy over all test images, each counted once; how many are right of each class.

    The ranks share the images, and each then adds up what all of them found, image by image and in the images' order:
    the same figures on all ranks, and the same sums whatever their number. `dispatched` is told of each batch's logits.
    """
    share = -(-len(data.test_images) // backend.group.size)
    mine = slice(backend.group.rank * share, (backend.group.rank + 1) * share)
    images, labels = data.test_images[mine], data.test_labels[mine]
    handles: list[Handle] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.resize(part, (batch_size, *part.shape[1:]))  # one batch size, one compilation
        handles.append(backend.infer(backend.to_device(padded, None)))
        dispatched(handles[-1])
    scores = np.zeros((2, share))  # right or wrong, and log probability, of each of this rank's images
    if handles:
        logits = np.concatenate([backend.to_numpy(handle) for handle in handles])[: len(labels)].astype(np.float64)
        shifted = logits - logits.max(1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        scores[0, : len(labels)] = logits.argmax(1) == labels
        scores[1, : len(labels)] = log_probability[np.arange(len(logits)), labels]
    right, log_probability = np.concatenate(ranks.gathered(backend.group, scores), axis=1)[:, : len(data.test_images)]
    right_of_class = np.bincount(data.test_labels[right > 0], minlength=CLASSES)
    return float(right.mean()), float(-log_probability.mean()), right_of_class


class Convergence:
    """One training from the initial weights to the end of the schedule or to the target.

    Args:
        read_data: reads the dataset; called inside the clock.
        batch_size: of the global batch.
        checkpoint: file to go on from if rank 0 has it, and for rank 0 to keep up to date.
        checkpoint_seconds: longest time between two checkpoints; there is one after each epoch anyway.
        process_memory: figures of this process by name, bytes.
        machine: what tells this machine from others (results: Ran).
    """

    def __init__(
        self, backend: Backend, spec: Spec, read_data: Callable[[], Dataset], batch_size: int, seed: int, stop: Stop,
        checkpoint: Path, checkpoint_seconds: float, meter: Meter, clock: Clock, progress: Progress = silent,
        process_memory: Callable[[], dict[str, int | None]] = dict, machine: str = "0" * 16,
    ) -> None:  # fmt: skip
        self.backend, self.spec, self.batch_size, self.seed, self.stop = backend, spec, batch_size, seed, stop
        self.group: Group = backend.group
        self.read_data, self.checkpoint, self.checkpoint_seconds = read_data, checkpoint, checkpoint_seconds
        self.meter, self.clock, self.progress, self.process_memory = meter, clock, progress, process_memory
        self.machine = machine
        self.steps_per_epoch = spec.steps_per_epoch(batch_size)
        self.total_steps = spec.training.epochs * self.steps_per_epoch
        # About a hundred samples an epoch make its mean training loss without a host wait per step.
        self.loss_stride = max(1, self.steps_per_epoch // 100)
        self.evaluation_steps = spec.evaluation_steps(batch_size)
        self.pending: list[tuple[int, Handle]] = []
        self.has_inferred = False

    def run(self) -> measurements.Convergence:
        """Train, from the checkpoint if there is one; what rank 0 returns is what counts.

        Raises:
            RanksApart: the ranks' parameters differ at the end of an epoch.
        """
        self._begin()
        self.data = self.read_data()
        images, labels = self.data.train_images, self.data.train_labels
        batches = TrainingBatches(self.spec, images, labels, self.batch_size, self.seed, self.group)
        with batches.prefetched(self.record.step) as prefetched, Writer(self.checkpoint, self.clock) as self.writer:
            self.trainer = Trainer(
                self.backend, self.spec, iter(prefetched), self.batch_size, self.clock, self.record.step
            )
            self._first_step()
            while not self._finished():
                self._step()
        self.record.checkpoint_write_seconds = self.written_before + self.writer.seconds
        return self._measurements()

    def _begin(self) -> None:
        """Take up the checkpoint or start afresh, and start the clock and the meter."""
        if ranks.decided(self.group, self.checkpoint.exists()):
            state, record = load_checkpoint(self.checkpoint) if self.group.rank == 0 else (None, Record())
            self.record = Record.model_validate(ranks.agreed(self.group, record.model_dump()))
            self.record.resumed += 1
            self.backend.load_state(ranks.shared_arrays(self.group, state))
        else:
            self.record = Record()
            self.backend.load_params(params.initial(self.spec))
        self.record.world_sizes.append(self.group.size)
        self.record.ran.append(Ran(began=utc_text(), ended=utc_text(), machine=self.machine))
        self.written_before = self.record.checkpoint_write_seconds
        self.backend.reset_peak_memory()
        self.started = self.clock() - self.record.seconds
        self.last_checkpoint = self.clock()
        self.meter.start()

    def _finished(self) -> bool:
        if self.record.evaluations and self.record.evaluations[-1].test_loss is None:
            return True  # diverged: no later step can bring it back
        return self.record.step >= self.total_steps or (self.stop == "target" and self._at_target() is not None)

    def _first_step(self) -> None:
        if self._finished():
            return  # killed after the last checkpoint, before the outcome was written
        start = self.clock()
        self.backend.synchronize(self._step())
        self.record.first_step_seconds += self.clock() - start

    def _step(self) -> Handle:
        record = self.record
        handle = self.trainer.step()
        if record.step % self.loss_stride == 0 or record.step < self.spec.measuring.loss_trace_steps:
            self.pending.append((record.step, handle))
        record.step += 1
        within = (record.step - 1) % self.steps_per_epoch + 1
        evaluated = within in self.evaluation_steps
        if evaluated:
            self._evaluate(handle)
        if evaluated and (within == self.steps_per_epoch or self._finished()):
            self._check_ranks()
            self._save(metered=True)
        elif self._checkpoint_is_due():
            self._save()
        self.progress(record.step / self.total_steps, f"epoch {self._epoch()}", **self._figures())
        return handle

    def _checkpoint_is_due(self) -> bool:
        """Rank 0's clock says; other ranks can only be told a hundred times an epoch, as it holds all of them up."""
        if self.group.size > 1 and self.record.step % self.loss_stride:
            return False
        return bool(ranks.decided(self.group, self.clock() - self.last_checkpoint >= self.checkpoint_seconds))

    def _epoch(self) -> int:
        """The epoch under way, counted from 1."""
        return min(self.record.step // self.steps_per_epoch + 1, self.spec.training.epochs)

    def _figures(self) -> dict[str, float]:
        """What is shown while training: no newer loss than the host has anyway, since asking for one would wait."""
        record = self.record
        figures = {"images_per_second": record.step * self.batch_size / max(self.clock() - self.started, 1e-9)}
        losses = record.losses or [row.train_loss for row in record.evaluations]
        if losses and losses[-1] is not None:
            figures["loss"] = losses[-1]
        if record.evaluations:
            figures["top1"] = record.evaluations[-1].top1
        return figures

    def _collect_losses(self) -> None:
        """Bring the sampled losses of the steps since the last call to the host."""
        for step, handle in self.pending:
            loss = finite(float(self.backend.to_numpy(handle)[0]))
            if step < self.spec.measuring.loss_trace_steps:
                self.record.loss_trace.append(loss)
            if step % self.loss_stride == 0:
                self.record.losses.append(loss)
        self.pending.clear()

    def _check_ranks(self) -> None:
        if self.group.size > 1:
            checksum = params.fingerprint(self.backend.export_params())
            ranks.check_same(
                self.group, checksum, f"parameters after epoch {self.record.step / self.steps_per_epoch:.4g}"
            )

    def _evaluate(self, handle: Handle) -> None:
        """Evaluate with the weights of this moment; `handle` is of the step that made them."""
        record = self.record
        self.backend.synchronize(handle)
        self._collect_losses()
        start = self.clock()
        done, figures = record.step / self.total_steps, self._figures()

        def dispatched(logits: Handle) -> None:
            if not self.has_inferred:
                self.backend.synchronize(logits)
                record.first_inference_seconds += self.clock() - start
                self.has_inferred = True
            self.progress(done, "evaluating", **figures)

        top1, test_loss, right = evaluate(self.backend, self.data, self.spec.training.eval_batch_size, dispatched)
        record.evaluation_seconds += self.clock() - start
        record.evaluations.append(
            Evaluation(
                step=record.step,
                seconds=self.clock() - self.started,
                evaluation_seconds=record.evaluation_seconds,
                checkpoint_seconds=record.checkpoint_seconds,
                first_seconds=record.first_step_seconds + record.first_inference_seconds,
                train_loss=_mean(record.losses),
                test_loss=finite(test_loss),
                top1=top1,
                class_right=tuple(right.tolist()),
                joules=self._read_meter(),
                ended=record.windows[-1][1] if record.windows else None,
            )
        )
        record.losses = []

    def _read_meter(self) -> float | None:
        """Add the meter's figure since the last call to the energy so far, and return the sum."""
        reading, record = self.meter.stop(), self.record
        if reading.joules is None or record.joules is None:
            record.joules = None
        else:
            record.joules += reading.joules
        told = reading.changed(windows=None)  # they are noted by themselves
        record.energy = told if record.energy is None else record.energy.plus(told)
        self._note_window(reading.windows)
        self.meter.start()
        return record.joules

    def _note_window(self, windows: Sequence[Span] | None) -> None:
        """Note when the meter ran; what follows on what is known lengthens it."""
        known = self.record.windows
        for start, end in windows or ():
            follows = bool(known) and 0 <= start - known[-1][1] < FOLLOWS_SECONDS
            known.append((known.pop()[0] if follows else start, end))

    def _save(self, metered: bool = False) -> None:
        """Hand a checkpoint to the thread that writes it; what the training waits for meanwhile is on its clock.

        Args:
            metered: the meter has just been read, and a second window would be empty.
        """
        start, record = self.clock(), self.record
        spent = record.checkpoint_seconds
        self._collect_losses()
        if not metered:
            self._read_meter()
        self._note_memory()
        record.host_wait_seconds, self.trainer.host_wait = record.host_wait_seconds + self.trainer.host_wait, 0.0
        if self.group.rank == 0:
            state = self.backend.export_state()
            self.writer.wait()
            record.checkpoint_write_seconds = self.written_before + self.writer.seconds
            record.ran[-1] = record.ran[-1].changed(ended=utc_text())
            record.seconds = self.clock() - self.started
            record.checkpoint_seconds = spent + self.clock() - start
            self.writer.write(state, record)
        record.checkpoint_seconds = spent + self.clock() - start
        self.last_checkpoint = self.clock()

    def _note_memory(self) -> None:
        figures = {**self.backend.memory(), **self.process_memory()}
        for name, value in figures.items():
            known = self.record.memory.get(name)
            self.record.memory[name] = value if known is None or (value or 0) > known else known

    def _at_target(self) -> Evaluation | None:
        """The first evaluation that shows the target."""
        return next((row for row in self.record.evaluations if row.top1 >= self.spec.training.target_top1), None)

    def _measurements(self) -> measurements.Convergence:
        record, reached = self.record, self._at_target()
        last = record.evaluations[-1]  # the training ends with its last evaluation, not with the checkpoint behind it
        assert record.energy is not None  # the meter is read at each evaluation
        return measurements.Convergence(
            parallel=RanksConvergence(world_sizes=tuple(record.world_sizes)) if max(record.world_sizes) > 1 else None,
            batch_size=self.batch_size,
            stop=self.stop,
            target_top1=self.spec.training.target_top1,
            steps_per_epoch=self.steps_per_epoch,
            epochs_to_target=None if reached is None else reached.step / self.steps_per_epoch,
            seconds_to_target=None if reached is None else reached.seconds,
            images=record.step * self.batch_size,
            seconds=last.seconds,
            evaluation_seconds=last.evaluation_seconds,
            checkpoint_seconds=last.checkpoint_seconds,
            checkpoint_write_seconds=record.checkpoint_write_seconds,
            first_step_seconds=record.first_step_seconds,
            first_inference_seconds=record.first_inference_seconds,
            host_wait_seconds=record.host_wait_seconds,
            evaluations=tuple(record.evaluations),
            class_images=tuple(np.bincount(self.data.test_labels, minlength=CLASSES).tolist()),
            loss_trace=tuple(record.loss_trace),
            energy=record.energy.changed(joules=last.joules, windows=tuple(record.windows) or None),
            resumed=record.resumed,
            final_params=params.fingerprint(self.backend.export_params()),
            memory=record.memory,
            checks=None,
            unchecked=None,
        )


def _mean(losses: list[float | None]) -> float | None:
    """None where there are none, or one was not finite."""
    return finite(float(np.mean([math.nan if loss is None else loss for loss in losses]))) if losses else None
