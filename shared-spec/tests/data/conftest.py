"""The small CIFAR-100 in the official one's place, a cache of the test's own, and the real CIFAR-100."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cifar100 import CONTENTS, official

from shared_spec.data import cifar100
from shared_spec.data.dataset import Dataset

BESIDE_THE_CHECKOUT = Path(__file__).parents[4] / "shared" / "data" / "cifar-100-python.tar.gz"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTENTS takes the place of the official files."""
    monkeypatch.setattr(cifar100, "FILES", official(CONTENTS))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no variable that points elsewhere."""
    monkeypatch.delenv("CIFAR100_DIR", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where a cache is that has no other place
    return folder / "deit-bench" / "cifar-100-python"


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """CIFAR-100's archive: $CIFAR100_ARCHIVE, else beside the checkout, else the test is skipped."""
    named = os.environ.get("CIFAR100_ARCHIVE")
    archive = Path(named) if named else BESIDE_THE_CHECKOUT
    if archive.is_file():
        return archive
    if named:
        pytest.fail(f"$CIFAR100_ARCHIVE: {archive} is not a file")
    pytest.skip("NOT TESTED ON REAL DATA: set $CIFAR100_ARCHIVE to cifar-100-python.tar.gz")


@pytest.fixture(scope="session")
def real_folder(real_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cifar100")
    yield cifar100.extract(real_archive, folder)
    shutil.rmtree(folder)  # pytest would keep 186 MB of each of its last three runs


@pytest.fixture(scope="session")
def real_dataset(real_folder: Path) -> Dataset:
    return cifar100.read(real_folder)
