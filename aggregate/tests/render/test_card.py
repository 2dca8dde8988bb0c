"""The picture to share."""

from pathlib import Path

import matplotlib.image
import pytest

from aggregate.tests.factory import call, make_result, save
from aggregate.tests.machines import three


def test_a_card_of_three_machines(tmp_path: Path) -> None:
    for i, content in enumerate(three()):
        save(content, tmp_path, f"{i}.json")
    done = call("card", tmp_path, "--out", tmp_path / "card.png")
    assert done.exit_code == 0, done.output
    picture = matplotlib.image.imread(tmp_path / "card.png")
    assert picture.shape[:2] == (630, 1200)
    colours = {tuple(round(255 * part) for part in picture[row, 70][:3]) for row in range(630)}
    assert {(0, 61, 122), (197, 130, 0), (187, 85, 102)} <= colours, "a bar in the colour of each platform"


@pytest.mark.parametrize("content", [{"schema_version": "9.0"}, make_result(phases=["conformance", "latency"])])
def test_no_card_without_a_training(tmp_path: Path, content: dict[str, object]) -> None:
    done = call("card", save(content, tmp_path), "--out", tmp_path / "card.png")
    assert done.exit_code == 2
    assert not (tmp_path / "card.png").exists()
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().endswith(".")


def test_a_card_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    done = call("card", save(make_result(), tmp_path), "--out", tmp_path / "result.json" / "card.png")
    assert done.exit_code == 2
    assert "give another file" in done.stderr
