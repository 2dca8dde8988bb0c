"""A small CIFAR-100: twenty training and ten test images in files and archives of the official form."""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from shared_spec.data.cifar100 import OfficialFile
from shared_spec.data.dataset import Dataset

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
