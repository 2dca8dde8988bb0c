"""Whatever the user has set for matplotlib: the charts are the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DRAW = """
import hashlib
from aggregate.analysis.sections import sections
from aggregate.render import figures
from aggregate.tests.factory import as_runs, make_result
(section,) = sections(as_runs(make_result(phases=["training"])))
figures.KINDS = [kind for kind in figures.KINDS if kind.stem in ("throughput", "loss")]
for plot in figures.draw(section):
    inline = "".join(getattr(panel, "svg", "") for panel in plot.panels)
    print(plot.name, *(hashlib.sha256(data).hexdigest() for data in (plot.png, plot.svg, plot.pdf, inline.encode())))
"""
DARK = "text.usetex: True\nfigure.facecolor: black\naxes.facecolor: black\nfont.size: 30\nsvg.fonttype: none\nfigure.dpi: 37\n"


def drawn(home: Path, before: str = "", **environment: str) -> str:
    """Hashes of charts drawn by a process of its own, whose user's home is this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "MATPLOTLIB", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + DRAW],
        env=kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shared-spec")))} | environment,
        cwd=home, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return drawn(tmp_path_factory.mktemp("home"))


def test_a_notebooks_backend_does_not_matter(tmp_path: Path, undisturbed: str) -> None:
    assert drawn(tmp_path, MPLBACKEND="module://not_installed.backend_inline") == undisturbed


def test_settings_by_file_and_in_the_home_do_not_matter(tmp_path: Path, undisturbed: str) -> None:
    config = tmp_path / ".config" / "matplotlib"
    config.mkdir(parents=True)
    (config / "matplotlibrc").write_text(DARK)
    assert drawn(tmp_path, MATPLOTLIBRC=str(config / "matplotlibrc"), MPLBACKEND="no such backend") == undisturbed


def test_settings_of_whoever_imported_matplotlib_first_do_not_matter(tmp_path: Path, undisturbed: str) -> None:
    before = "import matplotlib\nmatplotlib.rcParams.update({'text.usetex': True, 'font.size': 30, 'figure.dpi': 37})\n"
    assert drawn(tmp_path, before) == undisturbed


def test_what_is_set_comes_back() -> None:
    import matplotlib as mpl

    from aggregate.render.matplotlib_alone import styled

    before = mpl.rcParams["font.size"]
    with styled({"font.size": 31}):
        assert mpl.rcParams["font.size"] == 31
    assert mpl.rcParams["font.size"] == before
