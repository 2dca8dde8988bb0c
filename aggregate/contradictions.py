"""What in a result contradicts itself, although the schema allows it: times, units and counts that cannot all be true.

A result has raw samples and no percentile to lie about. What can be wrong is that some of its figures are in another
unit, or not of the run that the others are of: each is held against another that knows of the same thing.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from shared_spec.workload import params
from shared_spec.workload.spec import Spec

Problems = Iterator[tuple[str, str]]
"""As (JSON pointer, what)."""
Measured = dict[str, Any]
"""Measurements of one outcome."""

CLOCK_TOLERANCE = 1.01
"""What a phase timed may exceed the life of its process by this factor: the two are read from different clocks."""
UNIT = 30.0
"""Two times of the same work are further apart than this factor only if one is in another unit (a thousand is beyond
the square of it)."""
MIN_WATTS, MAX_WATTS = 1.0, 5e3
"""What a device that trains takes at least, and at most a machine with one: joules in the wrong unit are found out."""
MAX_FLOPS = 1e16
"""Operations per second beyond any one device's matrix products."""
MAX_DEVICE_BYTES = 2**40
"""Beyond the memory of any one device."""
SCORED = 10_000
"""Test images of CIFAR-100."""


def problems(content: dict[str, Any], spec: Spec | None) -> Problems:
    """Fields of the outcomes that do not fit one another, the head of the result or its spec (None: not a valid one)."""
    first: dict[str, Any] | None = None
    seen = set()
    for i, outcome in enumerate(content["phases"]):
        here, phase, backend = f"/phases/{i}", outcome["phase"], outcome["backend"]
        if (key := (phase, outcome["repeat"])) in seen:
            yield here, f"is repeat {key[1]} of {phase} for the second time"
        seen.add(key)
        if backend:
            first = first or backend
            yield from _backend(content, first, backend, f"{here}/backend")
        if outcome["status"] != "ok":
            continue
        yield from _lifetime(outcome, here)
        here = f"{here}/measurements"
        yield from _wished(outcome["measurements"], phase, content["profile"]["content"], here)
        if phase in OF_PHASE:
            yield from OF_PHASE[phase](outcome["measurements"], here, content)
        if spec is not None and phase in AGAINST_SPEC:
            yield from AGAINST_SPEC[phase](outcome["measurements"], here, content, spec)
    yield from _same_work(content, spec)


def samples(content: dict[str, Any]) -> object:
    """What tells a run's samples from those of any other: two runs never time the same to the last digit."""
    timed = [
        tuple(map(tuple, m["window_blocks"])) if phase == "training" else tuple(m["host_to_host_seconds"])
        for phase in ("training", "latency")
        for m in _measured(content, phase)
    ]
    return hash(tuple(timed)) if timed else object()


def _measured(content: dict[str, Any], phase: str) -> list[Measured]:
    return [o["measurements"] for o in content["phases"] if o["phase"] == phase and o["status"] == "ok"]


def _backend(content: dict[str, Any], first: dict[str, Any], backend: dict[str, Any], here: str) -> Problems:
    if backend["engine"] != content["engine"]:
        yield f"{here}/engine", f"is {backend['engine']!r}, but /engine is {content['engine']!r}"
    if (requested := backend["precision"]["requested"]) != content["precision"]:
        yield f"{here}/precision/requested", f"is {requested!r}, but /precision is {content['precision']!r}"
    for name in ("framework", "framework_version", "device"):
        if backend[name] != first[name]:
            yield f"{here}/{name}", "differs from that of an earlier phase: a result is one run on one machine"


def _total(blocks: list[list[float]]) -> float:
    return math.fsum(seconds for _, seconds in blocks)


def _step(blocks: list[list[float]]) -> float:
    """Seconds a step."""
    return _total(blocks) / sum(steps for steps, _ in blocks)


def _lifetime(outcome: dict[str, Any], here: str) -> Problems:
    timed = _timed(outcome["phase"], outcome["measurements"])
    if timed > outcome["seconds"] * CLOCK_TOLERANCE and not outcome["measurements"].get("resumed"):
        yield f"{here}/seconds", f"is {outcome['seconds']:g}, but the times measured within add up to {timed:g}"


def _timed(phase: str, measured: Measured) -> float:
    """Seconds of a phase that are in its measurements; they cannot exceed the life of its process."""
    times: list[float] = []
    blocks: list[list[list[float]]] = []
    if phase == "ceiling":
        blocks = [size["blocks"] for size in measured["sizes"]]
    elif phase == "inference":
        times = [size["first_inference_seconds"] for size in measured["sizes"]]
        blocks = [size["window_blocks"] for size in measured["sizes"]]
    elif phase == "training":
        times = [measured["first_step_seconds"], *measured["step_seconds"]]
        blocks = [measured["warmup_blocks"], measured["window_blocks"]]
    elif phase == "latency":
        times = [
            measured["first_inference_seconds"],
            *measured["host_to_host_seconds"],
            *measured["device_only_seconds"],
        ]
        blocks = [measured["warmup_blocks"]]
    elif phase == "convergence":
        times = [measured["seconds"]]
    return math.fsum([*times, *map(_total, blocks)])


def _wished(measured: Measured, phase: str, profile: dict[str, Any], here: str) -> Problems:
    """Windows shorter than the profile makes them: all times of such a phase are in a larger unit than seconds."""
    asked = profile.get("window_seconds" if phase == "training" else f"{phase}_seconds")
    if not isinstance(asked, int | float):
        return
    windows: list[tuple[str, float]] = []
    if phase == "training":
        windows = [("window_blocks", _total(measured["window_blocks"]))]
    elif phase == "latency":
        windows = [(name, math.fsum(measured[name])) for name in ("host_to_host_seconds", "device_only_seconds")]
    elif phase == "inference":
        windows = [(f"sizes/{i}/window_blocks", _total(s["window_blocks"])) for i, s in enumerate(measured["sizes"])]
    for name, seconds in windows:
        if seconds * CLOCK_TOLERANCE < asked:
            yield f"{here}/{name}", f"take {seconds:g} s together, but the profile asks for {asked:g} s at least"


def _apart(here: str, seconds: float, what: str, other: float) -> Problems:
    """A problem if two times of the same work cannot both be in seconds."""
    if max(seconds, other) > UNIT * min(seconds, other):
        yield here, f"says {seconds:.3g} s, but {what} {other:.3g} s: one of the two is wrong, or not in seconds"


def _same_work(content: dict[str, Any], spec: Spec | None) -> Problems:
    """Times of the same work in different phases and repeats: a training step, and an inference of one image."""
    of_work: dict[str, list[tuple[str, float]]] = {"a training step": [], "an inference of one image": []}
    training, inference = of_work.values()
    for i, outcome in enumerate(content["phases"]):
        if outcome["status"] != "ok":
            continue
        here, phase, m = f"/phases/{i}/measurements", outcome["phase"], outcome["measurements"]
        if phase == "training":
            training.append((f"{here}/window_blocks", _step(m["window_blocks"])))
        elif phase == "convergence":
            alone = m["seconds"] - m["evaluation_seconds"] - m["checkpoint_seconds"] - m["first_step_seconds"]
            if alone > 0:
                training.append((f"{here}/seconds", alone * m["batch_size"] / m["images"]))
        elif phase == "max_batch" and spec:
            tries = [(n, t) for n, t in enumerate(m["tries"]) if t["measurements"]]
            training += [
                (f"{here}/tries/{n}/measurements/window_blocks", _step(t["measurements"]["window_blocks"]))
                for n, t in tries
                if t["batch_size"] == spec.training.batch_size and content["parallel"] is None
            ]
        elif phase == "latency":
            inference.append((f"{here}/device_only_seconds", statistics.median(m["device_only_seconds"])))
        elif phase == "inference":
            inference += [
                (f"{here}/sizes/{n}/window_blocks", _step(size["window_blocks"]))
                for n, size in enumerate(m["sizes"])
                if size["batch_size"] == 1
            ]
    for what, times in of_work.items():
        for here, seconds in times[1:]:
            yield from _apart(here, seconds, f"{what} at {times[0][0]} took", times[0][1])


def _conformance(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    if measured["passed"] != all(check["passed"] for check in measured["checks"]):
        yield f"{here}/passed", f"is {measured['passed']}, which is not what the checks say"
    for i, check in enumerate(measured["checks"]):
        within = check["figure"] is not None and check["figure"] <= check["bound"]
        if check["passed"] != within:
            yield f"{here}/checks/{i}/passed", f"is {check['passed']}, which is not what figure and bound say"


def _rates(measured: Measured) -> list[float]:
    """Operations per second of the matrix products of a ceiling phase."""
    return [2.0 * size["n"] ** 3 / _step(size["blocks"]) for size in measured["sizes"]]


def _ceiling(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    rates = _rates(measured)
    for i, rate in enumerate(rates):
        if rate > MAX_FLOPS:
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, which no device does"
        if i and max(rate, rates[i - 1]) > UNIT * min(rate, rates[i - 1]):
            yield f"{here}/sizes/{i}/blocks", f"mean {rate:.3g} operations a second, the size before {rates[i - 1]:.3g}"


def _training(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    window = measured["window_blocks"]
    if (wait := measured["window_host_wait_seconds"]) > CLOCK_TOLERANCE * (seconds := _total(window)):
        yield f"{here}/window_host_wait_seconds", f"is {wait:g}, but the whole window took {seconds:g}"
    single = statistics.median(measured["step_seconds"])
    yield from _apart(f"{here}/step_seconds", single, "a step of the window took", _step(window))
    yield from _apart(
        f"{here}/warmup_blocks", _step(measured["warmup_blocks"][-1:]), "a step of the window took", _step(window)
    )
    yield from _energy(measured["energy"], seconds, f"{here}/energy", content, MIN_WATTS)
    yield from _energy(measured["idle"], measured["idle"]["seconds"], f"{here}/idle", content, 0)
    yield from _ranks(measured, here, content)


def _ranks(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    """What several ranks saw of the same steps."""
    of_ranks, world = measured["parallel"], content["parallel"]
    if (of_ranks is None) != (world is None):
        yield f"{here}/parallel", "does not go with /parallel: both are null, or neither"
        return
    if of_ranks is None or world is None:
        return
    for name, own in (("rank_window_blocks", "window_blocks"), ("rank_step_seconds", "step_seconds")):
        each = of_ranks[name]
        if len(each) != world["world_size"]:
            yield (
                f"{here}/parallel/{name}",
                f"is of {len(each)} ranks, but /parallel/world_size is {world['world_size']}",
            )
        if each[0] != measured[own]:
            yield f"{here}/parallel/{name}/0", f"is not what rank 0 says in {own}"
    windows = of_ranks["rank_window_blocks"]
    if any([steps for steps, _ in blocks] != [steps for steps, _ in windows[0]] for blocks in windows):
        yield f"{here}/parallel/rank_window_blocks", "are of different numbers of steps"
    for rank, blocks in enumerate(windows):
        yield from _apart(f"{here}/parallel/rank_window_blocks/{rank}", _step(blocks), "rank 0 took", _step(windows[0]))
    whole, hidden = of_ranks["communication_seconds"], of_ranks["overlapped_seconds"]
    if whole is not None and whole > UNIT * _step(measured["window_blocks"]):
        yield f"{here}/parallel/communication_seconds", f"is {whole:g}, far more than a whole step takes"
    if hidden is not None and (whole is None or hidden > CLOCK_TOLERANCE * whole):
        yield f"{here}/parallel/overlapped_seconds", f"is {hidden:g}, more than the communication took"


def _latency(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    host, device = (statistics.median(measured[f"{name}_seconds"]) for name in ("host_to_host", "device_only"))
    yield from _apart(f"{here}/host_to_host_seconds", host, "on the device alone it is", device)
    warm = _step(measured["warmup_blocks"][-1:])
    yield from _apart(f"{here}/warmup_blocks", warm, "when warm it is", host)


def _inference(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    sizes = [size["batch_size"] for size in measured["sizes"]]
    if len(set(sizes)) < len(sizes):
        yield f"{here}/sizes", "has a batch size twice"
    steps = sorted((size["batch_size"], _step(size["window_blocks"]), i) for i, size in enumerate(measured["sizes"]))
    for (smaller, before, _), (batch, step, i) in itertools.pairwise(steps):
        if batch <= 2 * smaller:
            yield from _apart(f"{here}/sizes/{i}/window_blocks", step, f"at batch {smaller:,} it is", before)


def _energy(energy: Measured, seconds: float, here: str, content: dict[str, Any], least: float) -> Problems:
    joules, devices = energy["joules"], (content["parallel"] or {}).get("world_size", 1)
    if (joules is None) == (energy["reason"] is None):
        yield here, "must have either joules or the reason why there are none"
    if joules is not None and not least <= (watts := joules / seconds) <= MAX_WATTS * devices:
        yield f"{here}/joules", f"is {joules:g} in {seconds:g} s: {watts:.3g} W, which no such machine takes"


def _max_batch(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    fitting = [t["batch_size"] for t in measured["tries"] if t["outcome"] == "fits"]
    if measured["batch_size"] != max(fitting, default=None):
        yield f"{here}/batch_size", f"is {measured['batch_size']}, which is not the largest try that fits"
    if len({t["batch_size"] for t in measured["tries"]}) < len(measured["tries"]):
        yield f"{here}/tries", "has a batch size twice"
    for i, tried in enumerate(measured["tries"]):
        if (tried["outcome"] == "fits") == (tried["measurements"] is None):
            yield f"{here}/tries/{i}/measurements", f"do not go with the outcome {tried['outcome']!r}"
    timed = [(t["batch_size"], _step(t["measurements"]["window_blocks"]), i) for i, t in enumerate(measured["tries"])
             if t["measurements"]]  # fmt: skip
    for (smaller, before, _), (batch, step, i) in itertools.pairwise(sorted(timed)):
        if step * UNIT < before:  # slower by any factor is possible: a machine that swaps
            here_too = f"{here}/tries/{i}/measurements/window_blocks"
            yield here_too, f"says {step:.3g} s at batch {batch:,}, but {before:.3g} s at batch {smaller:,}"


CLOCKS = ("seconds", "evaluation_seconds", "checkpoint_seconds")
"""Clocks of a full training that its epochs keep too."""


def _convergence(measured: Measured, here: str, content: dict[str, Any]) -> Problems:
    epochs = measured["epochs"]
    if [epoch["epoch"] for epoch in epochs] != list(range(1, len(epochs) + 1)):
        yield f"{here}/epochs", "are not numbered 1, 2, 3 ..."
        return
    for name in CLOCKS:
        times = [epoch[name] for epoch in epochs]
        if times != sorted(times):
            yield f"{here}/epochs", f"have {name} that run backwards"
        if measured[name] != times[-1]:
            yield f"{here}/{name}", f"is {measured[name]:g}, but the last epoch says {times[-1]:g}"
    joules = [epoch["joules"] for epoch in epochs if epoch["joules"] is not None]
    if measured["energy"]["joules"] != epochs[-1]["joules"]:
        yield (
            f"{here}/energy/joules",
            f"is {measured['energy']['joules']}, but the last epoch says {epochs[-1]['joules']}",
        )
    if joules != sorted(joules):
        yield f"{here}/epochs", "have joules that run backwards"
    for name in ("evaluation_seconds", "checkpoint_seconds", "first_step_seconds", "host_wait_seconds"):
        if measured[name] > CLOCK_TOLERANCE * measured["seconds"]:
            yield f"{here}/{name}", f"is {measured[name]:g}, but the whole training took {measured['seconds']:g}"
    yield from _energy(measured["energy"], measured["seconds"], f"{here}/energy", content, MIN_WATTS)
    yield from _target(measured, here)


def _target(measured: Measured, here: str) -> Problems:
    """Whether the target was reached when, and only when, the accuracies say so."""
    reached = [epoch for epoch in measured["epochs"] if epoch["top1"] >= measured["target_top1"]]
    number, seconds = (reached[0]["epoch"], reached[0]["seconds"]) if reached else (None, None)
    if measured["epochs_to_target"] != number:
        yield f"{here}/epochs_to_target", f"is {measured['epochs_to_target']}, but the accuracies say {number}"
    if measured["seconds_to_target"] != seconds:
        yield f"{here}/seconds_to_target", f"is {measured['seconds_to_target']}, but the epochs say {seconds}"


OF_PHASE: dict[str, Callable[[Measured, str, dict[str, Any]], Problems]] = {
    "conformance": _conformance,
    "ceiling": _ceiling,
    "training": _training,
    "latency": _latency,
    "inference": _inference,
    "max_batch": _max_batch,
    "convergence": _convergence,
}


def _batch(measured: Measured, here: str, content: dict[str, Any], spec: Spec) -> Problems:
    world = content["parallel"]
    ranks = world["world_size"] if world and world["scaling"] == "weak" else 1
    if measured["batch_size"] != (specified := ranks * spec.training.batch_size):
        yield f"{here}/batch_size", f"is {measured['batch_size']}, but the spec says {specified}"


def _memory(memory: dict[str, int | None], here: str, content: dict[str, Any], spec: Spec) -> Problems:
    """Peaks too small for the weights, or too large for any machine: bytes that are kilobytes, or the reverse."""
    weights, installed = 4 * params.count(spec), content["environment"].get("memory_bytes")
    for name in ("mlx_peak", "tf_peak", "host_peak"):
        if (peak := memory.get(name)) is None:
            continue
        most = 2 * installed if name == "host_peak" and type(installed) is int else MAX_DEVICE_BYTES
        if not weights <= peak <= max(most, weights):
            yield f"{here}/{name}", f"is {peak:,}: not between the weights' {weights:,} bytes and what a machine has"


def _training_as_specified(measured: Measured, here: str, content: dict[str, Any], spec: Spec) -> Problems:
    yield from _batch(measured, here, content, spec)
    yield from _memory(measured["memory"], f"{here}/memory", content, spec)
    rates = [rate for ceiling in _measured(content, "ceiling") for rate in _rates(ceiling)]
    rate = spec.model.training_flops * measured["batch_size"] / _step(measured["window_blocks"])
    world = (content["parallel"] or {}).get("world_size", 1)
    if rate > UNIT * world * max(rates, default=MAX_FLOPS / UNIT):
        yield f"{here}/window_blocks", f"mean {rate:.3g} operations a second, far beyond the device's matrix products"


def _convergence_as_specified(measured: Measured, here: str, content: dict[str, Any], spec: Spec) -> Problems:
    yield from _batch(measured, here, content, spec)
    yield from _memory(measured["memory"], f"{here}/memory", content, spec)
    if measured["target_top1"] != (target := spec.training.target_top1):
        yield f"{here}/target_top1", f"is {measured['target_top1']}, but the spec says {target}"
    if (done := len(measured["epochs"])) > spec.training.epochs:
        yield f"{here}/epochs", f"are {done}, but the spec says {spec.training.epochs}"
    batch = measured["batch_size"]
    if measured["images"] != (images := done * spec.steps_per_epoch(batch) * batch):
        yield f"{here}/images", f"is {measured['images']:,}, but {done} epochs are {images:,}"
    for i, epoch in enumerate(measured["epochs"]):
        if not any(_whole(epoch["top1"] * count) for count in {SCORED, spec.data.test_images}):
            yield f"{here}/epochs/{i}/top1", f"is {epoch['top1']}, which is not a number of test images"


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6


AGAINST_SPEC: dict[str, Callable[[Measured, str, dict[str, Any], Spec], Problems]] = {
    "training": _training_as_specified,
    "convergence": _convergence_as_specified,
}
