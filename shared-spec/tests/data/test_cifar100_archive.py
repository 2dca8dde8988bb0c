"""CIFAR-100's archive: what is taken out of it, whatever it says, and the download that brings it."""

import errno
import gzip
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pooch
import pytest
import requests
from fake_cifar100 import (
    ARCHIVE,
    CONTENTS,
    assert_is_small,
    member,
    official,
    official_members,
    tar_bytes,
    write_archive,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_spec import places
from shared_spec.data import cifar100
from shared_spec.data.cifar100 import Unavailable
from shared_spec.errors import UserError


@pytest.mark.usefixtures("small")
def test_archive_cannot_write_elsewhere(tmp_path: Path, cache: Path) -> None:
    train = CONTENTS["train"]
    archive = write_archive(
        tmp_path / "evil.tar.gz",
        member("../escaped", b"x"),
        member(f"{tmp_path}/absolute", b"x"),
        member("cifar-100-python/../../train", train),
        member("cifar-100-python", type=tarfile.SYMTYPE, linkname=str(tmp_path / "linked")),
        member("cifar-100-python/extra", b"x"),
        *official_members(),
    )
    before = set(tmp_path.rglob("*"))
    cifar100.locate(str(archive), progress=False)
    created = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert created == {cache / "train", cache / "test", cache / "meta"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_archive_with_a_link_for_a_file(tmp_path: Path, cache: Path, kind: bytes) -> None:
    first, *others = official_members()
    link = member(first[0].name, type=kind, linkname="/etc/passwd")
    archive = write_archive(tmp_path / "links.tar.gz", link, *others)
    with pytest.raises(UserError, match=r"links.tar.gz: has no regular file cifar-100-python/train; get it anew"):
        cifar100.locate(str(archive), progress=False)
    assert not (cache / "train").exists()


@pytest.mark.usefixtures("small", "cache")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "is not an intact .tar.gz archive"),
        (lambda content: b"", "is not an intact .tar.gz archive"),
        (lambda content: b"PK\3\4" + content, "is not an intact .tar.gz archive"),
        (lambda content: content[:20] + b"\xff" * 20 + content[40:], "is not an intact .tar.gz archive"),
        (lambda content: b"<html>no archive</html>" * 100, "is not an intact .tar.gz archive"),
        (lambda content: gzip.compress(b"no tar"), "is not an intact .tar.gz archive"),
        (lambda content: gzip.compress(tar_bytes(member("a.txt", b"x"))), "has no regular file"),
    ],
    ids=["truncated", "empty", "zip", "corrupted", "a page", "no tar", "foreign"],
)
def test_damaged_archive(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", *official_members())
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UserError, match=rf"/a.tar.gz: {reason}.*get it anew from https://"):
        cifar100.locate(str(archive), progress=False)


@pytest.mark.usefixtures("small", "cache")
@pytest.mark.parametrize("size", [2**70, -1024], ids=["beyond all ends", "backwards"])
def test_header_that_lies_about_a_length_does_not_hang(tmp_path: Path, size: int) -> None:
    info, _ = member("cifar-100-python/readme")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes(member("first", b"x"))[:1024] + header + ARCHIVE))
    with pytest.raises(UserError, match=r"/a\.tar\.gz: (is not an intact|has no regular file)"):
        cifar100.locate(str(archive), progress=False)


@pytest.mark.usefixtures("small", "cache")
def test_archive_with_an_altered_file(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", member("cifar-100-python/test", CONTENTS["test"] + b"x"))
    with pytest.raises(UserError, match=r"a.tar.gz: cifar-100-python/test: its MD5 is not that of CIFAR-100's test"):
        cifar100.locate(str(archive), progress=False)


@pytest.mark.usefixtures("small")
def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", *official_members())
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(UserError, match=r"/train: cannot be written \(Not a directory\); extract a.tar.gz elsewhere"):
        cifar100.extract(archive, tmp_path / "folder" / "cifar-100-python")


@pytest.mark.usefixtures("small", "cache")
def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are other places; where none of them takes files it is a sentence."""
    archive = write_archive(tmp_path / "a.tar.gz", *official_members())
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setattr(places, "home", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    located = cifar100.locate(str(archive), progress=False)
    assert located == tmp_path / f"deit-bench-{os.getuid()}" / "deit-bench" / "cifar-100-python"
    monkeypatch.setattr(places, "try_to_write", no_room)
    with pytest.raises(UserError, match=r"No folder can hold temporary files: .*Set TMPDIR"):
        cifar100.locate(str(archive), progress=False)


def no_room(folder: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


POSITIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)


@given(flips=POSITIONS, compressed=st.booleans(), end=st.none() | st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_a_damaged_archive_gives_a_user_error_or_the_right_dataset(
    flips: list[tuple[float, int]], compressed: bool, end: float | None
) -> None:
    damaged = bytearray(gzip.compress(ARCHIVE, 1, mtime=0) if compressed else ARCHIVE)
    for position, mask in flips:
        damaged[int(position * len(damaged))] ^= mask
    if end is not None:
        del damaged[int(end * len(damaged)) :]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar100, "FILES", official(CONTENTS))
        archive, target = Path(folder, "a.tar.gz"), Path(folder, "target")
        archive.write_bytes(damaged if compressed else gzip.compress(damaged, 1, mtime=0))
        try:
            cifar100.extract(archive, target)
        except UserError:
            return
        assert_is_small(cifar100.read(target))


# The download


class Server:
    """Stands in for pooch's downloader: serves a content, or fails."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content, self.asked = content, 0
        self.options: dict[str, object] = {}

    def configure(self, **options: object) -> "Server":
        self.options = options
        return self

    def __call__(self, url: str, output_file: str, pooch: None) -> None:
        self.asked += 1
        assert url == cifar100.URL
        if isinstance(self.content, Exception):
            raise self.content
        Path(output_file).write_bytes(self.content)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | Exception], Server]:
    def serve(content: bytes | Exception) -> Server:
        server = Server(content)
        monkeypatch.setattr(pooch, "HTTPDownloader", server.configure)
        return server

    return serve


@pytest.mark.usefixtures("small")
def test_download_is_verified_extracted_and_not_repeated(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, served: Callable[[bytes], Server]
) -> None:
    archive = write_archive(tmp_path / "a", *official_members()).read_bytes()
    monkeypatch.setattr(cifar100, "ARCHIVE_MD5", hashlib.md5(archive).hexdigest())
    server = served(archive)
    assert cifar100.locate(None, progress=True) == cache
    assert server.options["progressbar"] is True
    assert_is_small(cifar100.read(cache))
    assert cifar100.locate(None, progress=False) == cache
    (cache / "train").write_bytes(b"damaged")
    assert cifar100.locate(None, progress=False) == cache
    assert server.asked == 1
    assert_is_small(cifar100.read(cache))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (requests.exceptions.ConnectionError("HTTPSConnectionPool(...): Max retries exceeded ..."), "ConnectionError"),
        (requests.exceptions.ConnectTimeout("timed out"), "ConnectTimeout"),
        (requests.exceptions.HTTPError("404 Client Error"), "HTTPError"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (b"<html>Please log in to the hotel's network</html>", "what came is not the official archive"),
    ],
)
def test_failed_download_is_told_apart_and_leaves_nothing(
    cache: Path, served: Callable[[bytes | Exception], Server], failure: bytes | Exception, reason: str
) -> None:
    served(failure)
    with pytest.raises(Unavailable, match=rf"cannot be downloaded from https://.* \({reason}\); check the network, or"):
        cifar100.locate(None, progress=False)
    assert list(cache.parent.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_cache_that_cannot_be_made_is_no_reason_to_stop(
    tmp_path: Path, cache: Path, served: Callable[[bytes], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    served(b"")
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setattr(places, "home", lambda: None)
    monkeypatch.setattr(places, "try_to_write", no_room)
    with pytest.raises(Unavailable, match="No space left on device"):
        cifar100.locate(None, progress=False)
