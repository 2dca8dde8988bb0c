"""The benchmark's questions as bars, sorted, of the very figures that the answer names."""

from collections.abc import Callable, Sequence

from aggregate.analysis import series
from aggregate.analysis.answer import Key, answers
from aggregate.analysis.merging import Run
from aggregate.render.figures.bars import Bars, of_answer, of_metric
from aggregate.render.figures.kind import Kind
from aggregate.render.figures.style import Looks

Make = Callable[[Sequence[Run]], list[Bars]]


def _asked(**titles: str) -> Make:
    """Bars of these questions, as far as any run has an answer."""

    def make(runs: Sequence[Run]) -> list[Bars]:
        known = answers(runs)
        keys: dict[Key, str] = {key: title for key, title in titles.items() if key in known}
        made = [of_answer(title, known[key]) for key, title in keys.items()]
        return [bars for bars in made if bars.rankings]

    return make


def _power(runs: Sequence[Run]) -> list[Bars]:
    """What the training window drew: watts, and what they bought; what meters cover is told apart."""
    return _of_metrics(
        runs,
        ("power", "Power while training", 0),
        ("images_per_joule", "Images per joule while training", +1),
    )


def _efficiency(runs: Sequence[Run]) -> list[Bars]:
    """The share of the device's own rate that training reaches, and that rate."""
    return _of_metrics(
        runs,
        ("efficiency", "Training, share of the device's matrix-product rate", +1),
        ("ceiling", "The device's matrix-product rate", +1),
    )


def _of_metrics(runs: Sequence[Run], *metrics: tuple[str, str, int]) -> list[Bars]:
    made = []
    for metric, title, better in metrics:
        if found := series.standings(runs, metric):
            lacking = [(run, why) for run in runs if (why := series.uncompared(run, metric))]
            made.append(of_metric(title, found, better, lacking))
    return made


def _kind(stem: str, title: str, what: str, make: Make, *, details: bool = False) -> Kind:
    def able(runs: Sequence[Run]) -> list[Run]:
        shown = {standing.run.letter for bars in make(runs) for standing in bars.standings}
        return [run for run in runs if run.letter in shown]

    def panels(runs: Sequence[Run], looks: Looks) -> list[Bars]:
        return make(runs)

    return Kind(stem, title, what, able, panels, details=details)


TRAINING = _kind(
    "throughput",
    "Who trains fastest?",
    "training throughput",
    _asked(full="A full training, everything counted in", training="Training, steady window at batch 32"),
)
INFERENCE = _kind(
    "inference", "Who answers soonest, and most?", "latency or inference throughput",
    _asked(latency="One image: median latency", inference="Many images: throughput, batch 32"),
)  # fmt: skip
MEMORY = _kind(
    "memory", "How much memory does training take?", "memory figure",
    _asked(memory="Memory taken from the machine, batch 32", max_batch="Largest batch that trains"),
)  # fmt: skip
TARGET = _kind("target", "How long until it has learned?", "training to the target", _asked(target="Time to target"))
COST = _kind("cost", "What does it cost?", "cost of a training", _asked(cost="Cost to target"))
ENERGY = _kind(
    "energy", "How much power and energy?", "meter's figure",
    lambda runs: [*_asked(energy="Energy to target")(runs), *_power(runs)],
)  # fmt: skip
EFFICIENCY = _kind(
    "efficiency", "How close to what the device can do?", "matrix-product rate", _efficiency, details=True
)
