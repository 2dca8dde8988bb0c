"""Reports that several tests read, made once."""

from pathlib import Path

import pytest

from aggregate.analysis.comparison import compare
from aggregate.analysis.reading import load
from aggregate.render import report
from aggregate.render.figures import files
from aggregate.render.figures.kind import Image
from aggregate.tests.factory import FULL_PHASES, PRICES, make_result, save, small_spec
from aggregate.tests.machines import fifty, three

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests are run from, nothing bounds a table."""
    monkeypatch.delenv("COLUMNS", raising=False)


FILES = (b"PNG", b'<svg width="1"></svg>', b"PDF")
"""In place of a chart's files, which take nearly all of the time that a report does."""


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are not rendered."""
    monkeypatch.setattr(files, "of", lambda panels, runs, looks, title: FILES)
    monkeypatch.setattr(files, "inline", lambda panel: Image(panel.title, "<svg></svg>"))


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


@pytest.fixture(scope="session")
def made_up_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of reports on one, three and fifty machines that people own, all made up; the page is rendered, no files."""
    made = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(files, "of", lambda panels, runs, looks, title: FILES)
        for name, contents in (("one", three()[:1]), ("three", three()), ("fifty", fifty())):
            folder = tmp_path_factory.mktemp(name)
            for i, content in enumerate(contents):
                save(content, folder, f"made-up-{i}.json")
            made[name] = _report([folder], folder)
    return made


def _report(paths: list[Path], folder: Path) -> Path:
    loaded = load(paths)
    assert loaded.results
    report.write(compare(loaded.results, loaded.problems, PRICES), folder / "report")
    return folder / "report"
