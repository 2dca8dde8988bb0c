"""Files that were cut, unpacked or written by other programs than they were meant to be."""

import codecs
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from fake_cifar100 import ARCHIVE, CONTENTS, assert_is_small, write_folder

from shared_spec import files
from shared_spec.cli import read_images
from shared_spec.data import cifar100
from shared_spec.errors import UserError


@pytest.mark.parametrize("length", [10, 200, 3000])
def test_an_archive_of_arrays_that_was_cut_is_a_sentence(length: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", a=np.zeros((2, 32, 32, 3), np.uint8))
    path = tmp_path / "x.npz"
    path.write_bytes((tmp_path / "whole.npz").read_bytes()[:length])
    with pytest.raises(UserError, match=r"x\.npz: is not a \.npy file"):
        read_images(path)


def test_a_header_that_claims_too_much_is_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 32, 3), np.uint8))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(
        content.replace(b"(1, 32, 32, 3), }    ", b"(99999999999, 32, 3), }"[:21].ljust(21))
    )
    with pytest.raises(UserError, match=r"x\.npy"):
        read_images(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["cifar-100-python.tar", "anything"])
def test_an_archive_that_a_browser_has_unpacked_is_read(name: str, small: None, cache: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ARCHIVE)
    assert_is_small(cifar100.read(cifar100.extract(tmp_path / name, tmp_path / "out")))


def test_it_is_found_in_its_folder(small: None, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/cifar-100-python.tar").write_bytes(ARCHIVE)
    assert cifar100.locate(str(tmp_path / "downloads"), progress=False) == cache


@pytest.mark.parametrize("name", ["test", "train", "meta"])
def test_a_stray_file_beside_the_archive_hides_it_not(name: str, small: None, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / name).write_text("somebody's")
    (folder / "cifar-100-python.tar.gz").write_bytes(gzip.compress(ARCHIVE))
    assert cifar100.locate(str(folder), progress=False) == cache


def test_what_a_folder_lacks_is_named(small: None, cache: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "part", {name: CONTENTS[name] for name in ("train", "meta")})
    with pytest.raises(UserError, match="has no file test"):
        cifar100.locate(str(tmp_path / "part"), progress=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_damage(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode(encoding))
    assert files.read(tmp_path / "a.json") == {"a": "é"}
    (tmp_path / "b.json").write_bytes(codecs.BOM_UTF8)
    with pytest.raises(UserError, match="not valid JSON"):
        files.read(tmp_path / "b.json")
