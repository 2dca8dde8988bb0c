"""Reference trainings: the committed bands are those of the committed results, and who lies outside is flagged."""

from pathlib import Path
from typing import Any

import pytest

from shared_spec import files
from shared_spec.dev import reference as command
from shared_spec.errors import UserError
from shared_spec.results import format
from shared_spec.results.measurements import Convergence, Evaluation
from shared_spec.results.reference import Band, flags, load_reference
from shared_spec.results.upgrade import upgrade
from shared_spec.workload.spec import Spec

COMMITTED = sorted((Path(__file__).parents[3] / "results").glob("*.json"))


def trained(*top1: float, per_epoch: int = 1) -> Convergence:
    """A training with these accuracies, an epoch taking ten steps."""
    rows: Any = [
        Evaluation.model_construct(top1=accuracy, step=10 * i // per_epoch, seconds=float(i))
        for i, accuracy in enumerate(top1, 1)
    ]
    return Convergence.model_construct(evaluations=tuple(rows), steps_per_epoch=10, target_top1=0.45)


def like_the_reference(crossing: float, final: float) -> Convergence:
    """A training of 15 epochs that crosses the target after so many of them."""
    before = int(crossing)
    part = crossing - before
    below, above = 0.45 - 0.02 * part, 0.45 + 0.02 * (1 - part)
    return trained(*[0.3] * (before - 1), below, above, *[0.48] * (13 - before), final)


def test_the_committed_reference_is_made_of_trainings_of_this_workload(standard_spec: Spec) -> None:
    reference = load_reference()
    assert reference.training_fingerprint == standard_spec.training_fingerprint
    assert reference.final_top1 == Band.of([training.final_top1 for training in reference.trainings])
    assert reference.epochs_to_target == Band.of([training.epochs_to_target for training in reference.trainings])
    carried = {files.read(path)["run_id"]: path for path in COMMITTED}
    for run_id in {training.run_id for training in reference.trainings} & carried.keys():
        again = command.trainings(format.parse(upgrade(files.read(carried[run_id]))), standard_spec)
        assert list(again) == [training for training in reference.trainings if training.run_id == run_id]


def test_no_committed_training_is_flagged(standard_spec: Spec) -> None:
    for path in COMMITTED:
        result = format.parse(upgrade(files.read(path)))
        for measured in result.measured(Convergence):
            assert flags(measured, result.spec.content, result.data.source) == []


def test_a_band_is_a_prediction_interval_by_hand() -> None:
    band = Band.of([1.0, 2.0, 3.0])
    assert (band.mean, band.spread) == (2.0, 1.0)
    assert band.high - 2.0 == pytest.approx(4.303 * (4 / 3) ** 0.5) == 2.0 - band.low


@pytest.mark.parametrize(
    ("crossing", "final", "words"),
    [
        (9.2, 0.495, []),
        (9.2, 0.47, ["ended worse"]),
        (9.2, 0.52, ["ended better"]),
        (8.5, 0.495, ["learned faster"]),
        (9.9, 0.495, ["learned slower"]),
        (8.5, 0.52, ["ended better", "learned faster"]),
    ],
)
def test_a_training_outside_is_flagged_on_either_side(
    standard_spec: Spec, crossing: float, final: float, words: list[str]
) -> None:
    found = flags(like_the_reference(crossing, final), standard_spec, "cifar-100")
    assert [word in flag for flag, word in zip(found, words, strict=True)] == [True] * len(words)


def test_what_has_no_reference_is_not_flagged(standard_spec: Spec, tiny_spec: Spec) -> None:
    wrong = like_the_reference(5.5, 0.9)
    assert flags(wrong, standard_spec, "cifar-100")
    assert flags(wrong, standard_spec, "synthetic") == flags(wrong, tiny_spec, "cifar-100") == []


def test_a_training_that_stopped_at_the_target_is_judged_by_when_it_came_there(standard_spec: Spec) -> None:
    assert flags(trained(*[0.3] * 8, 0.448, 0.456), standard_spec, "cifar-100") == []
    assert "faster" in flags(trained(*[0.3] * 4, 0.44, 0.46), standard_spec, "cifar-100")[0]


def test_evaluations_halfway_do_not_count_against_a_training(standard_spec: Spec) -> None:
    """One that sees the target in the middle of epoch 8, and once only, crosses it where it stays."""
    halves = [0.3] * 14 + [0.451, 0.43] + [0.43, 0.446, 0.44, 0.466] + [0.48] * 9 + [0.495]
    measured = trained(*halves, per_epoch=2)
    assert measured.crossing is not None
    assert measured.crossing_at_epochs is not None
    assert (measured.crossing.steps / 10, measured.crossing_at_epochs.steps / 10) == pytest.approx(
        (7.4967, 9.2), abs=1e-3
    )
    assert flags(measured, standard_spec, "cifar-100") == []


def test_one_training_makes_no_band(standard_spec: Spec) -> None:
    with pytest.raises(UserError, match="0 whole trainings"):
        command.reference_of([], standard_spec)
