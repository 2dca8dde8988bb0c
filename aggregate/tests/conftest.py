"""Reports that several tests read, made once."""

from pathlib import Path

import pytest

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import load
from aggregate.render import figures, report
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result, save, small_spec

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests are run from, nothing bounds a table."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are drawn but not rendered, which takes nearly all of the time that a report does."""
    monkeypatch.setattr(figures, "_files", lambda figure: (b"PNG", b'<svg width="1"></svg>'))


@pytest.fixture(scope="session")
def invented_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a report on results with all there can be."""
    folder = tmp_path_factory.mktemp("invented")
    contents = (
        make_result("mlx", phases=FULL_PHASES, repeats=2), make_result("tf-cuda", phases=FULL_PHASES),
        make_result("tf-cuda", precision="bf16"), make_result(spec=small_spec()),
        make_result(conformance=False), {"schema_version": "9.0"},
    )  # fmt: skip
    for i, content in enumerate(contents):
        save(content, folder, f"{i}.json")
    return _report([folder], folder)


@pytest.fixture(scope="session")
def committed_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report on the results in the repository."""
    return _report([RESULTS], tmp_path_factory.mktemp("committed"))


def _report(paths: list[Path], folder: Path) -> Path:
    loaded = load(paths)
    assert len(loaded.results) >= 3
    report.write(compare(loaded.results, loaded.problems, PRICES), folder / "report")
    return folder / "report"
