"""CIFAR-100: found wherever it lies, believed only when verified, and never executed."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_spec.data import cifar100
from shared_spec.data.cifar100 import Dataset, OfficialFile, Unavailable
from shared_spec.errors import UserError
from shared_spec.workload.spec import Spec

IMAGES = {"train": 20, "test": 10}


def pixels(name: str) -> np.ndarray:
    """Planes as the files hold them, uint8 [N, 3 * 32 * 32]."""
    return np.random.default_rng(len(name)).integers(0, 256, (IMAGES[name], 3072), np.uint8)


def as_pickle(name: str, **changes: object) -> bytes:
    """A small file in the form of the official ones, NumPy's names spelt as in 2009."""
    fields = {
        b"data": pixels(name),
        b"fine_labels": [7 * i % 100 for i in range(IMAGES[name])],
        b"coarse_labels": [0] * IMAGES[name],
        b"filenames": [b"x.png"] * IMAGES[name],
        b"batch_label": b"batch",
    }
    fields |= {key.encode(): value for key, value in changes.items()}
    return pickle.dumps(fields, protocol=3).replace(b"numpy._core.", b"numpy.core.")


CONTENTS = {"train": as_pickle("train"), "test": as_pickle("test"), "meta": pickle.dumps({}, protocol=2)}


def official(contents: dict[str, bytes]) -> dict[str, OfficialFile]:
    return {
        name: OfficialFile(len(content), hashlib.md5(content).hexdigest(), IMAGES.get(name, 0))
        for name, content in contents.items()
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTENTS takes the place of the official files."""
    monkeypatch.setattr(cifar100, "FILES", official(CONTENTS))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no variable that points elsewhere."""
    monkeypatch.delenv("CIFAR100_DIR", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    return folder / "deit-bench" / "cifar-100-python"


def write_folder(folder: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def official_members(prefix: str = "cifar-100-python/") -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(prefix + name, content) for name, content in CONTENTS.items()]


def write_archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path.write_bytes(gzip.compress(tar_bytes(*members), 1, mtime=0))
    return path


def assert_is_small(dataset: Dataset) -> None:
    for name, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(images[..., 1].reshape(-1, 1024), pixels(name)[:, 1024:2048])
        np.testing.assert_array_equal(labels, [7 * i % 100 for i in range(IMAGES[name])])
    assert dataset.source == "cifar-100"
    assert dataset.checksums == {name: hashlib.md5(content).hexdigest() for name, content in CONTENTS.items()}


ARCHIVE = tar_bytes(*official_members())


# Where it is found


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


# What is said where it is not


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


# Archives that are not what they should be


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
        (gzip.decompress, "is not an intact .tar.gz archive"),
        (lambda content: gzip.compress(b"no tar"), "is not an intact .tar.gz archive"),
        (lambda content: gzip.compress(tar_bytes(member("a.txt", b"x"))), "has no regular file"),
    ],
    ids=["truncated", "empty", "zip", "corrupted", "not compressed", "no tar", "foreign"],
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
def test_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", *official_members())
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match=r"/train: cannot be written \(Not a directory\); extract a.tar.gz elsewhere"):
        cifar100.locate(str(archive), progress=False)


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


# Pickles that would do something


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
    tmp_path: Path, cache: Path, served: Callable[[bytes], Server]
) -> None:
    served(b"")
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(Unavailable, match=r"\((Not a directory|File exists)\)"):
        cifar100.locate(None, progress=False)


# The stand-in


def sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def test_stand_in_is_the_same_everywhere(standard_spec: Spec) -> None:
    dataset = cifar100.synthetic(standard_spec)
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    assert dataset.test_images.shape == (10_000, 32, 32, 3)
    assert {dataset.train_images.dtype, dataset.test_images.dtype} == {np.dtype(np.uint8)}
    assert {dataset.train_labels.dtype, dataset.test_labels.dtype} == {np.dtype(np.int64)}
    assert dataset.source == "synthetic"
    arrays = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    assert dataset.checksums == {"synthetic_sha256": sha256(*arrays)}
    assert dataset.checksums["synthetic_sha256"] == "c93ee83d5f99f2ca699490691d739759ad2a0b357e5e3b5b7298e9a2c1d7d0f5"


def test_small_stand_in_is_the_start_of_a_large_one(tiny_spec: Spec) -> None:
    large = cifar100.synthetic(tiny_spec.changed(data=tiny_spec.data.changed(train_images=2_500, test_images=1_100)))
    small = cifar100.load(None, tiny_spec)
    assert (len(small.train_images), len(small.test_images)) == (64, 32)
    np.testing.assert_array_equal(small.train_images, large.train_images[:64])
    np.testing.assert_array_equal(small.test_images, large.test_images[:32])
    assert not np.array_equal(large.train_images[:1000], large.test_images[:1000])
    assert small.checksums != large.checksums


def test_stand_in_can_be_learned_and_is_not_trivial(tiny_spec: Spec) -> None:
    """Class means of the training images, a linear rule, must classify unseen images; single pixels must not."""
    dataset = cifar100.synthetic(tiny_spec.changed(data=tiny_spec.data.changed(train_images=2_000, test_images=500)))
    train, test = (images.reshape(len(images), -1) / 255 for images in (dataset.train_images, dataset.test_images))
    means = np.stack([train[dataset.train_labels == label].mean(0) for label in range(100)])
    nearest = ((test[:, None, ::8] - means[None, :, ::8]) ** 2).sum(-1).argmin(1)
    assert (nearest == dataset.test_labels).mean() > 0.95
    one_pixel = ((test[:, None, :3] - means[None, :, :3]) ** 2).sum(-1).argmin(1)
    assert (one_pixel == dataset.test_labels).mean() < 0.3


# The real one


@pytest.mark.real_data
def test_real_dataset(real_dataset: Dataset) -> None:
    assert real_dataset.train_images.shape == (50_000, 32, 32, 3)
    assert real_dataset.test_images.shape == (10_000, 32, 32, 3)
    for images, labels, n in (
        (real_dataset.train_images, real_dataset.train_labels, 500),
        (real_dataset.test_images, real_dataset.test_labels, 100),
    ):
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.flags.c_contiguous
        assert images.flags.writeable
        assert np.bincount(labels).tolist() == [n] * 100
    mean = real_dataset.train_images.reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(mean, [0.50708, 0.48655, 0.44092], atol=1e-5)
    assert real_dataset.source == "cifar-100"
    assert real_dataset.checksums == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }


@pytest.mark.real_data
def test_real_images_equal_an_independent_reading(real_dataset: Dataset, real_folder: Path) -> None:
    """The array stands in the file as it is; the first fine labels are those that others have published."""
    content = (real_folder / "train").read_bytes()
    start = content.find(real_dataset.train_images[0].transpose(2, 0, 1).tobytes())
    planes = np.frombuffer(content, np.uint8, 50_000 * 3072, start).reshape(50_000, 3, 1024)
    for channel in range(3):
        np.testing.assert_array_equal(
            real_dataset.train_images[::97, :, :, channel].reshape(-1, 1024), planes[::97, channel]
        )
    assert real_dataset.train_labels[:5].tolist() == [19, 29, 0, 11, 1]  # cattle, dinosaur, apple, boy, aquarium_fish
    assert real_dataset.test_labels[:5].tolist() == [49, 33, 72, 51, 71]  # mountain, forest, seal, mushroom, sea
