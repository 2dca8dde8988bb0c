"""Checkpoints travel: what one platform trained, the other two and timm load, and all compute the same logits.

`make test-across` runs this once the environments of all three platforms are there: each platform runs through its real
command line, in its own environment.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shared_spec.data import synthetic
from shared_spec.workload import params, reference
from shared_spec.workload.params import Params
from shared_spec.workload.spec import Spec

ROOT = Path(__file__).parents[2]
PLATFORMS = {
    "bench_mlx": ROOT / "bench-mlx",
    "bench_tf_cuda": ROOT / "bench-tf-cuda",
    "bench_torch_ipex": ROOT / "bench-torch-ipex",
}
TOLERANCE = 1e-5
"""Of the largest logit, in fp32: the figure seen is some 3e-7, a bfloat16 or TF32 product anywhere makes it 1e-3."""

TIMM = """
import sys
import numpy, safetensors.torch, timm, torch
weights, inputs, out = sys.argv[1:]
model = timm.create_model("deit_small_patch16_224", num_classes=100).eval()
model.load_state_dict(safetensors.torch.load_file(weights))
with torch.inference_mode():
    numpy.save(out, model(torch.from_numpy(numpy.load(inputs))).numpy())
"""


def call(package: str, *words: object) -> str:
    line = [PLATFORMS[package] / ".venv/bin/python", "-m", package, *map(str, words)]
    done = subprocess.run(line, cwd=PLATFORMS[package], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predicted(package: str, spec_file: Path | None, weights: Path, images: Path) -> np.ndarray:
    out = images.with_name(f"{package}-{weights.stem}.npy")
    spec = ("--spec", spec_file) if spec_file else ()
    call(package, "predict", *spec, "--device", "cpu", "--weights", weights, "--images", images, "--out", out)
    return np.asarray(np.load(out))


def save_images(images: np.ndarray, folder: Path) -> Path:
    path = folder / "images.npy"
    np.save(path, images)
    return path


def off(logits: np.ndarray, spec: Spec, weights: Params, images: np.ndarray) -> float:
    """Largest distance from the float64 answer, as a part of the largest logit."""
    exact, _ = reference.forward(spec, {name: value.astype(np.float64) for name, value in weights.items()}, images)
    return float(np.abs(logits - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("trainer", PLATFORMS)
def test_what_one_platform_trained_the_others_load(trainer: str, tiny_spec: Spec, tmp_path: Path) -> None:
    spec_file = tmp_path / "spec.json"
    spec_file.write_text(json.dumps(tiny_spec.to_dict()))
    asked = ("--spec", spec_file, "--device", "cpu", "--data", "synthetic", "--phases", "convergence")
    call(trainer, "run", *asked, "--keep-weights", "--out", tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    weights, images = params.load(tiny_spec, path), synthetic.dataset(tiny_spec).test_images[:8]
    assert params.fingerprint(weights) != params.fingerprint(params.initial(tiny_spec))
    for package in PLATFORMS.keys() - {trainer}:  # its own file is written from float32 by the same names as any other
        logits = predicted(package, spec_file, path, save_images(images, tmp_path))
        assert off(logits, tiny_spec, weights, images) < TOLERANCE, package


def test_timm_loads_the_standard_weights_and_agrees(standard_spec: Spec, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    initial = params.initial(standard_spec)
    weights = {name: value + random.normal(0, 0.02, value.shape).astype(np.float32) for name, value in initial.items()}
    path = tmp_path / "standard.safetensors"
    params.save(weights, path)
    images = random.integers(0, 256, (2, 32, 32, 3), np.uint8)
    for package in PLATFORMS:
        assert (
            off(predicted(package, None, path, save_images(images, tmp_path)), standard_spec, weights, images)
            < TOLERANCE
        )
    inputs, out = tmp_path / "inputs.npy", tmp_path / "timm.npy"
    np.save(inputs, reference.preprocess(standard_spec, images, np.dtype(np.float32)).transpose(0, 3, 1, 2))
    python = PLATFORMS["bench_torch_ipex"] / ".venv/bin/python"
    subprocess.run([python, "-c", TIMM, path, inputs, out], check=True, timeout=300)
    assert off(np.load(out), standard_spec, weights, images) < TOLERANCE
