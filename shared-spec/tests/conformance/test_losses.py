"""Golden losses: made by a command, found by what they depend on, the same whatever module computes them."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from foreign_arrays import FOREIGN

from shared_spec import files
from shared_spec.conformance import golden, losses
from shared_spec.conformance.losses import compute_losses
from shared_spec.data import synthetic
from shared_spec.workload import arrays, params
from shared_spec.workload.spec import Spec


@pytest.fixture(scope="module")
def short(tiny_spec: Spec) -> Spec:
    return tiny_spec.changed(measuring=tiny_spec.measuring.changed(loss_trace_steps=6))


def test_another_array_module_finds_the_same_losses(short: Spec) -> None:
    """CuPy's part is played by arrays that refuse whatever CuPy's would."""
    data = synthetic.dataset(short)
    expected, found = (compute_losses(short, data, 4, 0, module) for module in (arrays.NUMPY, FOREIGN))
    assert found.keys() == expected.keys()
    assert all(isinstance(value, np.ndarray) for value in found.values())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_losses_are_those_of_the_first_steps_of_the_training(short: Spec) -> None:
    data = synthetic.dataset(short)
    found = compute_losses(short, data, 4, 0)
    other = compute_losses(short, data, 4, 1)
    assert found["loss/value"].shape == found["norm/value"].shape == (6,)
    assert found["loss/bf16"].shape == (losses.DRAWS, 6)
    np.testing.assert_allclose(found["loss/value"], np.log(100), rtol=0.1)
    assert not np.allclose(found["loss/value"], other["loss/value"], rtol=1e-6)
    for figure in losses.FIGURES:
        draws = found[f"{figure}/bf16"]
        assert np.median(draws) > 1000 * np.median(found[f"{figure}/fp32"])
        assert not np.allclose(draws[0], draws[1])


def test_losses_are_found_by_what_they_depend_on(standard_spec: Spec, tiny_spec: Spec) -> None:
    which = synthetic.identity(tiny_spec)
    path = losses.losses_path(standard_spec, which, 32, 0)
    assert path.name.startswith("losses-synthetic-seed-0-")
    longer = standard_spec.changed(training=standard_spec.training.changed(epochs=30))
    others = [
        losses.losses_path(longer, which, 32, 0),
        losses.losses_path(standard_spec, which, 64, 0),
        losses.losses_path(standard_spec, which, 32, 1),
        losses.losses_path(standard_spec, synthetic.identity(standard_spec), 32, 0),
        losses.losses_path(standard_spec.changed(init=standard_spec.init.changed(seed=1)), which, 32, 0),
    ]
    assert len({path, *others}) == 6
    target = standard_spec.changed(training=standard_spec.training.changed(target_top1=0.5))
    assert losses.losses_path(target, which, 32, 0) == path


def test_command_writes_losses_that_are_found(short: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec_file = tmp_path / "tiny.json"
    files.write(spec_file, short.to_dict())
    options = ["--spec", str(spec_file), "--losses", "--data", "synthetic", "--seed", "5", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(golden.main, options)
    assert done.exit_code == 0, done.output
    which = synthetic.identity(short)
    assert losses.golden_losses(short, which, 4, 5) is None
    monkeypatch.setattr(losses, "LOSSES_FOLDER", tmp_path / "o")
    found = losses.golden_losses(short, which, 4, 5)
    computed = compute_losses(short, synthetic.dataset(short), 4, 5)
    assert found is not None
    assert all(np.array_equal(found[name], value) for name, value in computed.items())


def test_command_without_cupy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(arrays, "import_module", absent)
    done = CliRunner().invoke(golden.main, ["--losses", "--data", "synthetic", "--arrays", "cupy"])
    assert done.exit_code == 1
    assert "--arrays cupy: CuPy cannot be used here (No module named 'cupy'); leave the option out." in done.output


KEPT = sorted(losses.LOSSES_FOLDER.glob("losses-*.safetensors"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_losses_are_plausible(standard_spec: Spec, path: Path) -> None:
    """All figures are there and finite, and the first loss is that of a model that knows nothing yet."""
    kept = safetensors.numpy.load_file(path)
    steps = standard_spec.measuring.loss_trace_steps
    assert kept["loss/value"].shape == kept["norm/value"].shape == (steps,)
    assert all(np.isfinite(value).all() for value in kept.values())
    assert abs(kept["loss/value"][0] / np.log(standard_spec.model.classes) - 1) < 0.1
    assert path.stat().st_size < 20_000


def test_initial_parameters_reach_the_device(short: Spec) -> None:
    """The foreign arrays are as strict as they claim: mixing them with those of the host is an error."""
    device = FOREIGN.put(params.initial(short)["norm.weight"])
    with pytest.raises(TypeError):
        device + np.ones(short.model.dim)
    with pytest.raises(TypeError):
        np.concatenate((device, np.ones(1)))
    assert isinstance(np.exp(device), type(device))
