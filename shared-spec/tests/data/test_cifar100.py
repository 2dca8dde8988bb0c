"""CIFAR-100: found wherever it lies, believed only when verified."""

import os
from pathlib import Path

import pytest
from fake_cifar100 import CONTENTS, assert_is_small, official_members, write_archive, write_folder

from shared_spec.data import cifar100
from shared_spec.data.cifar100 import Unavailable
from shared_spec.errors import UserError


@pytest.mark.parametrize(
    ("left_by", "layout"),
    [
        ("hand", ""),
        ("torchvision", "cifar-100-python"),
        ("keras", "cifar-100-python-target/cifar-100-python"),
    ],
)
@pytest.mark.usefixtures("small", "cache")
def test_folders_of_other_tools_work_as_they_are(tmp_path: Path, left_by: str, layout: str) -> None:
    folder = write_folder(tmp_path / "root" / layout)
    assert cifar100.locate(str(tmp_path / "root"), progress=False) == folder, left_by
    assert_is_small(cifar100.read(folder))


@pytest.mark.usefixtures("small", "cache")
def test_another_dataset_beside_it_does_not_mislead(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifar-100-python")
    (tmp_path / "train").mkdir()
    (tmp_path / "test").write_bytes(b"of something else")
    assert cifar100.locate(str(tmp_path), progress=False) == folder


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("prefix", ["cifar-100-python/", "./cifar-100-python/", ""])
def test_archive_is_extracted_into_the_cache_once(tmp_path: Path, cache: Path, prefix: str) -> None:
    archive = write_archive(tmp_path / "any.name", *official_members(prefix))
    folder = cifar100.locate(str(archive), progress=False)
    assert folder == cache
    assert sorted(os.listdir(cache)) == ["meta", "test", "train"]
    assert_is_small(cifar100.read(folder))
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    (cache / "test").write_bytes(b"damaged")
    cifar100.locate(str(archive), progress=False)
    assert (cache / "train").stat().st_mtime_ns == before[cache / "train"]
    assert_is_small(cifar100.read(folder))


@pytest.mark.usefixtures("small", "cache")
def test_folder_that_holds_the_archive_works(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-100-python.tar.gz", *official_members())
    folder = cifar100.locate(str(tmp_path), progress=False)
    assert folder is not None
    assert_is_small(cifar100.read(folder))


@pytest.mark.usefixtures("small", "cache")
def test_option_before_variable_before_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option, by_variable = write_folder(tmp_path / "option"), write_folder(tmp_path / "variable")
    write_folder(cache)
    assert cifar100.locate(None, progress=False) == cache
    assert cifar100.locate("", progress=False) == cache
    monkeypatch.setenv("CIFAR100_DIR", str(by_variable))
    assert cifar100.locate(None, progress=False) == by_variable
    assert cifar100.locate(str(by_option), progress=False) == by_option
    assert cifar100.locate("synthetic", progress=False) is None


@pytest.mark.usefixtures("small", "cache")
def test_home_and_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cifar100.locate("~/data", progress=False) == folder
    assert cifar100.locate("data", progress=False) == folder


@pytest.mark.usefixtures("cache")
def test_wrong_path_names_option_path_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^--data: .*/nowhere does not exist; give the folder .*train, test, meta"):
        cifar100.locate(str(tmp_path / "nowhere"), progress=False)
    monkeypatch.setenv("CIFAR100_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"^\$CIFAR100_DIR: .* holds no CIFAR-100; give") as caught:
        cifar100.locate(None, progress=False)
    assert not isinstance(caught.value, Unavailable)


@pytest.mark.usefixtures("cache")
def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match=r"--data: .* cannot be read \(Permission denied\); give"):
        cifar100.locate(str(tmp_path), progress=False)


@pytest.mark.usefixtures("small")
def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    folder = write_folder(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"/train: cannot be read \(Permission denied\); get it anew from https://"):
        cifar100.read(folder)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", CONTENTS)
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"/{name}: cannot be read \(No such file or directory\); get it anew from"):
        cifar100.read(folder)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", CONTENTS)
def test_truncated_altered_and_lengthened_files_are_named(tmp_path: Path, name: str) -> None:
    content = CONTENTS[name]
    for wrong, reason in (
        (content[:-1], rf"has {len(content) - 1:,} bytes instead of {len(content):,}, so it is truncated"),
        (bytes([content[0] ^ 1]) + content[1:], "its MD5 is not that of"),
        (content + b"\0", "its MD5 is not that of"),
        (b"", "has 0 bytes instead of"),
    ):
        folder = write_folder(tmp_path, CONTENTS | {name: wrong})
        with pytest.raises(UserError, match=rf"/{name}: {reason}"):
            cifar100.read(folder)


@pytest.mark.usefixtures("small")
def test_nothing_is_interpreted_before_all_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interpret(*arguments: object) -> None:
        pytest.fail("interpreted an unverified file")

    monkeypatch.setattr(cifar100, "_interpret", interpret)
    with pytest.raises(UserError, match="/meta: "):
        cifar100.read(write_folder(tmp_path, CONTENTS | {"meta": b"x" * 100}))
