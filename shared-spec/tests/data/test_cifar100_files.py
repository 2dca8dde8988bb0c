"""CIFAR-100's files: pickles that are never executed, and contents that are checked though their checksum fits."""

import io
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fake_cifar100 import CONTENTS, as_pickle, assert_is_small, official, pixels, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_spec.data import cifar100
from shared_spec.errors import UserError

POSITIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)


@given(name=st.sampled_from(["train", "test", "meta"]), flips=POSITIONS)
@settings(max_examples=100, deadline=None)
def test_an_altered_file_is_never_read(name: str, flips: list[tuple[float, int]]) -> None:
    content = bytearray(CONTENTS[name])
    for position, mask in flips:
        content[int(position * len(content))] ^= mask
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar100, "FILES", official(CONTENTS))
        write_folder(Path(folder), CONTENTS | {name: bytes(content)})
        if bytes(content) == CONTENTS[name]:
            assert_is_small(cifar100.read(Path(folder)))
        else:
            with pytest.raises(UserError, match=f"/{name}: its MD5"):
                cifar100.read(Path(folder))


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.usefixtures("small")
def test_malicious_pickle_is_stopped_by_its_checksum(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", CONTENTS | {"train": as_pickle("train", extra=Malicious(tmp_path / "x"))})
    with pytest.raises(UserError, match="/train: its MD5 is not"):
        cifar100.read(folder)
    assert not (tmp_path / "x").exists()


def test_malicious_pickle_is_stopped_by_the_unpickler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = CONTENTS | {"train": as_pickle("train", extra=Malicious(tmp_path / "x"))}
    monkeypatch.setattr(cifar100, "FILES", official(contents))
    folder = write_folder(tmp_path / "data", contents)
    with pytest.raises(UserError, match=r"/train: is not CIFAR-100's train file \(it asks for (posix|nt)\.mkdir\)"):
        cifar100.read(folder)
    assert not (tmp_path / "x").exists()
    pickle.loads(contents["train"])
    assert (tmp_path / "x").exists(), "the attack must work on an ordinary unpickler, or nothing has been tested"


@given(
    module=st.sampled_from(["builtins", "__builtin__", "os", "numpy", "numpy.core.multiarray", "copyreg", ""]),
    name=st.sampled_from(["eval", "getattr", "system", "load", "scalar", "_reconstruct", "ndarray"]) | st.text(),
)
def test_unpickler_looks_up_nothing_but_three_names(module: str, name: str) -> None:
    unpickler = cifar100._Unpickler(io.BytesIO())
    if (module, name) in [("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")]:
        unpickler.find_class(module, name)
    else:
        with pytest.raises(pickle.UnpicklingError):
            unpickler.find_class(module, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": pixels("train")[:-1]},
        {"data": pixels("train")[:, :-1]},
        {"data": pixels("train").astype(np.float32)},
        {"data": np.asfortranarray(pixels("train"))},
        {"data": [1, 2, 3]},
        {"fine_labels": [1] * 19},
        {"fine_labels": [100] * 20},
        {"fine_labels": [-1] * 20},
        {"fine_labels": ["cat"] * 20},
        {"fine_labels": None},
    ],
)
def test_content_is_checked_though_the_checksum_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    contents = CONTENTS | {"train": as_pickle("train", **changes)}
    monkeypatch.setattr(cifar100, "FILES", official(contents))
    with pytest.raises(UserError, match=r"/train: is not CIFAR-100's train file \("):
        cifar100.read(write_folder(tmp_path, contents))
