"""What README.md and docs/ say of the committed results is what these results say."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregate import readme
from aggregate.analysis.reading import load
from aggregate.render import docs
from shared_spec.errors import UserError
from shared_spec.results.measurements import Latency, Training


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return {path.relative_to(readme.ROOT).as_posix(): text for path, text in readme.pages()}


def test_they_are_current(made: dict[str, str]) -> None:
    """Where this fails: `make readme`."""
    stale = [name for name, text in made.items() if (readme.ROOT / name).read_text(encoding="utf-8") != text]
    assert not stale, "run `make readme`"


def test_a_second_time_changes_nothing_and_a_change_is_found(
    tmp_path: Path, made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("README.md", "results"):
        copied = shutil.copytree if (readme.ROOT / name).is_dir() else shutil.copy
        copied(readme.ROOT / name, tmp_path / name)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme.pages, "__defaults__", (tmp_path,))
    monkeypatch.setattr(readme.outdated, "__defaults__", (tmp_path,))
    first = CliRunner().invoke(readme.main, [])
    assert (first.exit_code, "docs/results.md: made anew" in first.output) == (0, True)
    assert CliRunner().invoke(readme.main, []).output == ""
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in made} == made
    page = tmp_path / "docs" / "metrics.md"
    page.write_text(page.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    checked = CliRunner().invoke(readme.main, ["--check"])
    assert (checked.exit_code, checked.output) == (1, "docs/metrics.md: is not current; run `make readme`\n")
    assert page.read_text(encoding="utf-8").endswith("more\n")


def test_figures_are_those_of_the_files(made: dict[str, str]) -> None:
    """The block's images a second and milliseconds, found in the files' own samples by nothing but arithmetic."""
    block = made["README.md"].partition(docs.BEGIN)[2].partition(docs.END)[0]
    measured = [measured for result in load([readme.ROOT / "results"]).results for measured in result.content.phases]
    phases = [outcome.measurements for outcome in measured]
    latencies = [1e3 * one.latency_median for one in phases if isinstance(one, Latency)]
    rates = [one.images_per_second for one in phases if isinstance(one, Training)]
    (training,) = re.findall(r"^- Training: .*?([\d,.]+) images/s", block, re.MULTILINE)
    (latency,) = re.findall(r"^- One image at a time: .*?([\d.]+) ms", block, re.MULTILINE)
    value = float(training.replace(",", ""))
    assert min(rates) <= value <= 1.001 * max(rates)
    assert any(abs(value / rate - 1) < 0.05 for rate in rates)
    assert any(abs(float(latency) / seconds - 1) < 1e-3 for seconds in latencies)


def test_a_readme_without_its_marks_is_told() -> None:
    for text in ("", docs.BEGIN, f"{docs.END}{docs.BEGIN}", f"{docs.BEGIN}{docs.END}{docs.BEGIN}"):
        with pytest.raises(UserError, match=r"README\.md: has no block"):
            docs.readme(text, None)  # type: ignore[arg-type]


def test_the_readme_is_read_to_its_end(made: dict[str, str]) -> None:
    assert len(made["README.md"].splitlines()) <= 130
    assert all(f"`{name}`" in made["docs/metrics.md"] for name in ("training_throughput", "ratio_low"))
