"""Which data it is, without reading it into arrays."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fake_cifar100 import CONTENTS, write_folder

from shared_spec.data import cifar100
from shared_spec.data.dataset import Identity
from shared_spec.errors import UserError
from shared_spec.workload.spec import Spec


@pytest.mark.usefixtures("small")
def test_identity_is_what_the_dataset_says(tiny_spec: Spec, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    several_blocks = tiny_spec.changed(data=tiny_spec.data.changed(train_images=2_500, test_images=1_100))
    for place, spec in ((None, tiny_spec), (None, several_blocks), (folder, tiny_spec)):
        dataset = cifar100.load(place, spec)
        assert cifar100.identity(place, spec) == Identity(dataset.source, dataset.checksums)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("fault", ["missing", "short", "long", "other"])
def test_identity_refuses_the_files_that_reading_refuses(
    tiny_spec: Spec, tmp_path: Path, name: str, fault: str
) -> None:
    content = CONTENTS[name]
    path = write_folder(tmp_path) / name
    path.unlink()
    if fault != "missing":
        path.write_bytes({"short": content[:-1], "long": content + b"x", "other": content[:-1] + b"\xff"}[fault])
    errors = []
    for refuse in (cifar100.identity, cifar100.load):
        with pytest.raises(UserError) as error:
            refuse(tmp_path, tiny_spec)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_identity_of_the_stand_in_holds_a_piece_of_it_at_a_time(standard_spec: Spec) -> None:
    tracemalloc.start()
    try:
        cifar100.identity(None, standard_spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6 < np.prod((50_000, 32, 32, 3))
