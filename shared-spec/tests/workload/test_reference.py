"""The reference is the arbiter, so it is compared with mathematics alone: definitions, identities, differences."""

import math

import numpy as np
import pytest

from shared_spec.workload import params, reference
from shared_spec.workload.spec import Spec, load_spec

CLASSES = 7


@pytest.fixture(scope="module")
def toy() -> Spec:
    """A model of 800 parameters: 8 x 8 pixels in 4 patches."""
    spec = load_spec()
    model = spec.model.changed(image_size=8, patch_size=4, classes=CLASSES, dim=4, depth=2, heads=2, mlp_dim=6)
    return spec.changed(model=model, data=spec.data.changed(image_size=4))


@pytest.fixture(scope="module")
def toy_inputs(toy: Spec) -> tuple[params.Params, np.ndarray, np.ndarray]:
    """Parameters of about 0.7, so that no part of the model is near linear; 3 images; targets that sum to 1."""
    random = np.random.default_rng(1)
    values = {name: random.normal(0, 0.7, shape) for name, shape in params.shapes(toy).items()}
    targets = random.random((3, CLASSES))
    return values, random.integers(0, 256, (3, 4, 4, 3), np.uint8), targets / targets.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", params.shapes(load_spec().changed(model=load_spec().model.changed(depth=2))))
def test_gradient_is_the_central_difference(
    toy: Spec, toy_inputs: tuple[params.Params, np.ndarray, np.ndarray], name: str
) -> None:
    values, images, targets = toy_inputs
    _, gradients = reference.loss_and_gradients(toy, values, images, targets)
    assert list(gradients[name].shape) == list(params.shapes(toy)[name])

    def loss_at(index: tuple[int, ...], offset: float) -> float:
        moved = values[name].copy()
        moved[index] += offset
        logits, _ = reference.forward(toy, values | {name: moved}, images)
        return reference.cross_entropy(logits, targets)[0]

    # Truncation is about h^2 and rounding 2^-53 / h: h = 1e-5 leaves 1e-10 of each.
    h, differences = 1e-5, np.empty_like(values[name])
    for index in np.ndindex(differences.shape):
        differences[index] = (loss_at(index, h) - loss_at(index, -h)) / (2 * h)
    np.testing.assert_allclose(gradients[name], differences, rtol=0, atol=3e-9)
    assert np.any(np.abs(differences) > 1e-6)


def test_gradients_are_of_all_parameters(toy: Spec, toy_inputs: tuple[params.Params, np.ndarray, np.ndarray]) -> None:
    assert reference.loss_and_gradients(toy, *toy_inputs)[1].keys() == params.shapes(toy).keys()


def test_key_biases_have_no_gradient(toy: Spec, toy_inputs: tuple[params.Params, np.ndarray, np.ndarray]) -> None:
    gradients = reference.loss_and_gradients(toy, *toy_inputs)[1]
    queries, keys, values = np.split(gradients["blocks.0.attn.qkv.bias"], 3)
    assert np.max(np.abs(keys)) < 1e-15
    assert min(np.max(np.abs(queries)), np.max(np.abs(values))) > 1e-4


def test_erf() -> None:
    x = np.array([[0.0, 0.5, 1.0], [-1.0, 3.0, 6.0]])
    known = [[0, 0.5204998778130465, 0.8427007929497149], [-0.8427007929497149, 0.9999779095030014, 1]]
    np.testing.assert_allclose(reference.erf(x), known, rtol=2e-16)


def test_gelu_has_its_tails() -> None:
    """GELU is x times the normal distribution function: 0.0013499 below -3, where the tanh formula has 0.00121."""
    y, _ = reference.gelu(np.array([-3.0, 0.0, 3.0]))
    np.testing.assert_allclose(y, [-3 * 0.0013498980316301, 0, 3 * 0.9986501019683699], rtol=1e-13)


def test_layer_norm_is_biased_and_has_eps_inside_the_root() -> None:
    y, _ = reference.layer_norm(np.array([[1.0, 3.0]]), np.array([2.0, 2.0]), np.array([0.5, 0.5]), eps=3.0)
    np.testing.assert_allclose(y, [[-0.5, 1.5]])


def test_attention_of_equal_keys_is_the_mean_of_values() -> None:
    random = np.random.default_rng(2)
    queries, values = random.normal(size=(2, 1, 5, 4))
    y, _ = reference.attention(np.concatenate((queries, np.ones((1, 5, 4)), values), -1), heads=2)
    np.testing.assert_allclose(y, np.broadcast_to(values.mean(1, keepdims=True), y.shape))


def test_attention_is_scaled_by_the_head_dimension() -> None:
    """One query, two keys: a score difference of 4 * 4^-0.5 = 2."""
    q, k, v = np.ones((1, 2, 4)), np.array([[[1.0] * 4, [0.0] * 4]]), np.array([[[1.0] * 4, [0.0] * 4]])
    y, _ = reference.attention(np.concatenate((q, k, v), -1), heads=1)
    np.testing.assert_allclose(y, 1 / (1 + math.exp(-2)))


def test_patch_weight_meets_its_pixel() -> None:
    """Weight [d, c, i, j] multiplies channel c of pixel (i, j) inside each patch; patches run row by row."""
    x = np.random.default_rng(3).normal(size=(1, 8, 8, 3))
    weight = np.zeros((1, 3, 4, 4))
    weight[0, 2, 1, 3] = 1
    y, _ = reference.patch_projection(reference.patches(x, 4), weight, np.zeros(1))
    np.testing.assert_array_equal(y[0, :, 0], [x[0, 1, 3, 2], x[0, 1, 7, 2], x[0, 5, 3, 2], x[0, 5, 7, 2]])


def test_preprocess_keeps_a_flat_image_flat(toy: Spec) -> None:
    x = reference.preprocess(toy, np.full((1, 4, 4, 3), 255, np.uint8), np.dtype(np.float64))
    assert x.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(
        x[0], np.broadcast_to((1 - np.array(toy.data.mean)) / toy.data.std, (8, 8, 3)), rtol=1e-6
    )


def test_computes_in_the_type_of_the_parameters(
    toy: Spec, toy_inputs: tuple[params.Params, np.ndarray, np.ndarray]
) -> None:
    values, images, targets = toy_inputs
    single = {name: value.astype(np.float32) for name, value in values.items()}
    loss, gradients = reference.loss_and_gradients(toy, single, images, targets)
    assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}
    assert loss == pytest.approx(reference.loss_and_gradients(toy, values, images, targets)[0], rel=1e-5)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes() -> None:
    loss, gradient = reference.cross_entropy(np.full((2, 100), 1000.0), np.eye(100)[[3, 4]])
    assert loss == pytest.approx(math.log(100))
    np.testing.assert_allclose(gradient, (0.01 - np.eye(100)[[3, 4]]) / 2)


@pytest.mark.parametrize(("size", "scale"), [(0.1, 1.0), (10.0, 1 / (50 + 1e-6))])
def test_clip(size: float, scale: float) -> None:
    gradients = {"a": np.array([3.0 * size]), "b": np.array([[4.0 * size]])}
    clipped, norm = reference.clip(gradients, 1.0)
    assert norm == pytest.approx(5 * size)
    assert clipped["b"][0, 0] == pytest.approx(4 * size * scale)


def test_adamw_by_hand() -> None:
    """Two steps with gradients 1 and 2 from 5, beta 0.9 and 0.999, decay 0.1, eps 0.5, learning rate 0.01."""
    o = load_spec().optimizer.changed(weight_decay=0.1, eps=0.5)
    names = {"head.weight": (1, 1), "head.bias": (1,)}
    state = reference.State.start({name: np.full(shape, 5.0) for name, shape in names.items()})
    for gradient in (1.0, 2.0):
        state = reference.adamw(o, state, {name: np.full(shape, gradient) for name, shape in names.items()}, 0.01)
    first, second = 1 / 1.5, (0.29 / 0.19) / (math.sqrt(0.004999 / 0.001999) + 0.5)
    assert state.step == 2
    assert state.params["head.bias"][0] == pytest.approx(5 - 0.01 * (first + second), rel=1e-14)
    decayed = 5 * 0.999 - 0.01 * first
    assert state.params["head.weight"][0, 0] == pytest.approx(decayed * 0.999 - 0.01 * second, rel=1e-14)


def test_training_on_one_batch_overfits(toy: Spec, toy_inputs: tuple[params.Params, np.ndarray, np.ndarray]) -> None:
    values, images, _ = toy_inputs
    state, losses = reference.State.start(values), []
    for _ in range(40):
        loss, gradients = reference.loss_and_gradients(toy, state.params, images, np.eye(CLASSES)[:3])
        state = reference.adamw(toy.optimizer, state, reference.clip(gradients, 1.0)[0], 0.02)
        losses.append(loss)
    assert losses[-1] < 0.5 * losses[0]
