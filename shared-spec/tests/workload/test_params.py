"""Parameters: timm's names, the specified values to the last bit, and errors that name the offender."""

import hashlib
import json
import math
import struct
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_spec.errors import UserError
from shared_spec.workload import params
from shared_spec.workload.params import Params
from shared_spec.workload.random_bits import random_bits
from shared_spec.workload.spec import Spec


@pytest.fixture(scope="module")
def initial(standard_spec: Spec) -> Params:
    return params.initial(standard_spec)


@pytest.fixture
def tiny(tiny_spec: Spec) -> Params:
    return params.initial(tiny_spec)


# Names and shapes


def test_parameter_counts(standard_spec: Spec) -> None:
    """Of DeiT-small with 100 classes, and with 1000 as in arXiv 2012.12877, table 1 (22 M)."""
    assert params.count(standard_spec) == 21_704_164
    assert params.count(standard_spec.changed(model=standard_spec.model.changed(classes=1000))) == 22_050_664


def test_names_and_shapes_are_timms(standard_spec: Spec) -> None:
    shapes = params.shapes(standard_spec)
    assert len(shapes) == 4 + 12 * 12 + 4
    assert shapes["cls_token"] == (1, 1, 384)
    assert shapes["pos_embed"] == (1, 197, 384)
    assert shapes["patch_embed.proj.weight"] == (384, 3, 16, 16)
    assert shapes["blocks.0.attn.qkv.weight"] == (1152, 384)
    assert shapes["blocks.11.mlp.fc1.weight"] == (1536, 384)
    assert shapes["blocks.11.mlp.fc2.weight"] == (384, 1536)
    assert shapes["norm.bias"] == (384,)
    assert shapes["head.weight"] == (100, 384)


def test_decay_leaves_out_vectors_and_embeddings(standard_spec: Spec) -> None:
    decayed = {name for name, shape in params.shapes(standard_spec).items() if params.has_decay(name, shape)}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = {f"blocks.{i}.{layer}.weight" for i in range(12) for layer in layers}
    assert decayed == blocks | {"patch_embed.proj.weight", "head.weight"}


# Initial values


def test_initial_values_are_the_same_everywhere(standard_spec: Spec, initial: Params) -> None:
    assert params.fingerprint(initial) == "f77fd333c4d34924a77ec42308c80a5caf20f47f51b82b1441c8ecd4a97695f5"
    for init, expected in (
        (standard_spec.init.changed(seed=0), "f384dba4fa9d5eed1a7491edd309d2cc03c9248ff4700985715f978812b06194"),
        (standard_spec.init.changed(std=0.5), "a21b006705962000a6ffc3b9ac2edcdc0934ca15a5aa5d7f2b0af539004dac2b"),
    ):
        assert params.fingerprint(params.initial(standard_spec.changed(init=init))) == expected


def test_initial_values_follow_the_recipe(standard_spec: Spec, initial: Params) -> None:
    params.check(standard_spec, initial, "initial")
    for name, value in initial.items():
        if value.ndim > 1:
            assert abs(value.mean()) < 5 * 0.02 / value.size**0.5, name
            assert value.std() == pytest.approx(0.02, rel=5 / (2 * value.size) ** 0.5), name
        else:
            assert (value == (1 if "norm" in name and name.endswith("weight") else 0)).all(), name


def test_draws_are_normal_and_independent(initial: Params) -> None:
    drawn = np.concatenate([value.ravel() for value in initial.values() if value.ndim > 1])[:4_000_000] / 0.02
    n = len(drawn)
    for bound in (-3, -2, -1, 0, 1, 2, 3):
        below = NormalDist().cdf(bound)
        assert (drawn < bound).mean() == pytest.approx(below, abs=5 * math.sqrt(below * (1 - below) / n))
    assert (drawn**4).mean() == pytest.approx(3, abs=0.01)
    weights = [initial[f"blocks.{i}.attn.proj.weight"].ravel() for i in range(12)]
    correlations = np.corrcoef(weights)[~np.eye(12, dtype=bool)]
    assert np.abs(correlations).max() < 5 / len(weights[0]) ** 0.5


def test_values_of_one_parameter_can_be_drawn_alone(tiny_spec: Spec, tiny: Params) -> None:
    """The definition, one value at a time: 16 bits of the parameter's own stream choose a quantile."""
    index = list(tiny).index("head.weight")
    words = random_bits(tiny_spec.init.seed, "init", index, 1).tolist()
    chosen = [words[0] >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    quantiles = [np.float32(NormalDist().inv_cdf((i + 0.5) / 2**16)) * np.float32(0.02) for i in chosen]
    assert tiny["head.weight"][0, :4].tolist() == [float(value) for value in quantiles]


def test_no_mathematics_library_can_change_a_value() -> None:
    """A logarithm off by some last bits, in float64, leaves every float32 quantile as it is."""
    exact = np.array([NormalDist().inv_cdf((i + 0.5) / 2**16) for i in range(2**16)])
    error = 16 * np.spacing(np.abs(exact))
    np.testing.assert_array_equal((exact + error).astype(np.float32), params._normal_quantiles())
    np.testing.assert_array_equal((exact - error).astype(np.float32), params._normal_quantiles())


# Fingerprint


def test_fingerprint_is_what_it_says() -> None:
    values = {"b": np.array([[1.0, -2.0]], np.float32), "a": np.array([0.5], np.float32)}
    expected = b"a [1]\n" + struct.pack("<f", 0.5) + b"b [1, 2]\n" + struct.pack("<ff", 1, -2)
    assert params.fingerprint(values) == hashlib.sha256(expected).hexdigest()
    assert params.fingerprint({"b": np.asfortranarray(values["b"]), "a": values["a"]}) == params.fingerprint(values)


def test_fingerprint_sees_names_shapes_and_values(tiny: Params) -> None:
    bias = tiny["head.bias"]
    others = [
        tiny | {"head.bias": bias + np.float32(1e-30)},
        tiny | {"head.bias": bias.reshape(10, 10)},
        {("renamed" if name == "head.bias" else name): value for name, value in tiny.items()},
        {name: value for name, value in tiny.items() if name != "head.bias"},
    ]
    assert len({params.fingerprint(values) for values in [tiny, *others]}) == 5


# Files


def test_saved_parameters_come_back(tiny_spec: Spec, tiny: Params, tmp_path: Path) -> None:
    transposed = tiny | {"head.weight": np.asfortranarray(tiny["head.weight"])}
    params.save(transposed, tmp_path / "new" / "w.safetensors")
    loaded = params.load(tiny_spec, tmp_path / "new" / "w.safetensors")
    assert params.fingerprint(loaded) == params.fingerprint(tiny)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": np.zeros(99, np.float32)}, r"head\.bias has shape \[99\], expected \[100\]"),
        ({"head.weight": np.zeros((32, 100), np.float32)}, r"head\.weight has shape \[32, 100\], expected \[100, 32\]"),
        ({"norm.bias": np.zeros(32, np.float64)}, r"norm\.bias has dtype float64, expected float32"),
        ({"norm.bias": np.zeros(32, np.float16)}, r"norm\.bias has dtype float16, expected float32"),
        ({"head_dist.bias": np.zeros(1, np.float32)}, r"parameter head_dist\.bias is unknown \(1 in all\)"),
        ({"norm.bias": None}, r"parameter norm\.bias is missing \(1 in all\)"),
    ],
)
def test_wrong_file_names_the_offender(
    tiny_spec: Spec, tiny: Params, tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.numpy.save({k: v for k, v in (tiny | change).items() if v is not None}))
    with pytest.raises(UserError, match=rf"/w\.safetensors: {message}"):
        params.load(tiny_spec, path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_types_that_numpy_does_not_know(tiny_spec: Spec, tmp_path: Path, dtype: str) -> None:
    header = json.dumps(
        {"norm.bias": {"dtype": dtype, "shape": [8], "data_offsets": [0, 16 if dtype == "BF16" else 8]}}
    )
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16 if dtype == "BF16" else 8))
    with pytest.raises(UserError, match=r"/w\.safetensors: is not a safetensors file of float32 arrays"):
        params.load(tiny_spec, path)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_file_that_cannot_be_read(tiny_spec: Spec, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read .*; give a \.safetensors file"):
        params.load(tiny_spec, tmp_path / name)


@given(end=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_truncated_file(tiny_spec: Spec, tmp_path_factory: pytest.TempPathFactory, end: float) -> None:
    content = safetensors.numpy.save(params.initial(tiny_spec))
    path = tmp_path_factory.getbasetemp() / "truncated.safetensors"
    path.write_bytes(content[: int(end * len(content))])
    with pytest.raises(UserError, match=r"truncated\.safetensors: is not a safetensors file"):
        params.load(tiny_spec, path)
