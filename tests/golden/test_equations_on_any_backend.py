"""The layer and the loss as equations, on whichever backend Keras runs.

The suite runs this file on TensorFlow; test_other_backends.py runs it again, without conftest.py, on
JAX and torch.
"""

import sys

import golden_reference as reference
import keras
import numpy as np
import pytest
from backend_gradient import value_and_gradients
from keras import ops

from kdant_tf.layers.attention_pooling import (
    BidirectionalAttentionPooling,
    attention_pool,
    bidirectional_attention_pool,
)
from kdant_tf.losses import NORMALIZATIONS, PENALTIES, REDUCTIONS
from kdant_tf.losses.features import FeatureLoss, feature_loss
from kdant_tf.losses.pooling_health import pooling_health
from kdant_tf.models.i3d import build_i3d

pytestmark = pytest.mark.slow

# Few sizes: JAX compiles each operation once a shape.
SHAPES = {
    "equal": ((2, 3, 4), (2, 3, 4)),
    "unequal": ((2, 3, 4), (2, 6, 4)),
    "five dimensions": ((2, 3, 1, 1, 4), (2, 1, 2, 3, 4)),
    "one position": ((2, 1, 4), (2, 1, 4)),
    "one position of the teacher": ((2, 3, 4), (2, 1, 4)),
}


def random_map(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """float32 activations after ReLU."""
    values = scale * np.random.default_rng(seed).standard_normal(shape)
    return np.maximum(values, 0).astype(np.float32)


def assert_close(received, expected, relative=1e-5):
    """Equal but for `relative` of the largest expected value."""
    largest = np.abs(expected).max()
    np.testing.assert_allclose(received, expected, rtol=relative, atol=relative * largest + 1e-12)


def test_only_the_chosen_backend_is_imported():
    backend = keras.backend.backend()
    assert ("tensorflow" in sys.modules) == (backend == "tensorflow")


@pytest.mark.parametrize(("alpha", "chunk"), [(None, 0), (0, 0), (4.0, 0), (None, 2), (0.3, 100)])
@pytest.mark.parametrize("shapes", SHAPES)
def test_layer_is_equations_4_to_6(shapes, alpha, chunk):
    observed, future = (random_map(seed, *shape) for seed, shape in enumerate(SHAPES[shapes]))
    a, r = reference.flatten(observed), reference.flatten(future)
    expected = {
        "a_in_r": reference.pool(a, r, alpha),
        "a_in_a": reference.pool(a, a, alpha),
        "r_in_a": reference.pool(r, a, alpha),
        "r_in_r": reference.pool(r, r, alpha),
    }
    pooled = BidirectionalAttentionPooling(alpha, chunk)([observed, future])
    assert set(pooled) == set(expected)
    for name, values in expected.items():
        assert keras.backend.standardize_dtype(pooled[name].dtype) == "float32"
        assert_close(ops.convert_to_numpy(pooled[name]), values)


@pytest.mark.parametrize(("chunk", "compiled"), [(0, False), (0, True), (2, False), (2, True)])
@pytest.mark.parametrize("shapes", ["unequal", "one position of the teacher"])
def test_pooling_has_the_gradients_of_its_equation(shapes, chunk, compiled):
    observed, future = (random_map(seed, *shape) for seed, shape in enumerate(SHAPES[shapes]))

    def total(a, r):
        return sum(ops.sum(v**2) for v in bidirectional_attention_pool(a, r, 0.7, chunk).values())

    def expected_total(a, r):
        pairs = ((a, r), (a, a), (r, a), (r, r))
        return sum((reference.pool(queries, keys, 0.7) ** 2).sum() for queries, keys in pairs)

    value, gradients = value_and_gradients(total, observed, future, compiled=compiled)
    assert_close(value, expected_total(observed, future))
    assert_close(gradients[0], reference.gradient(lambda a: expected_total(a, future), observed))
    assert_close(gradients[1], reference.gradient(lambda r: expected_total(observed, r), future))


@pytest.mark.parametrize(("chunk", "compiled"), [(0, False), (3, True)])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", ["unidirectional", "bidirectional"])
def test_loss_and_its_gradient_are_equations_7_to_9(name, shapes, chunk, compiled):
    student, teacher = (random_map(seed, *shape, scale=2) for seed, shape in enumerate(SHAPES[shapes]))
    value, (to_student, to_teacher) = value_and_gradients(
        lambda a, r: feature_loss(name, a, r, chunk=chunk), student, teacher, compiled=compiled
    )
    assert_close(value, reference.feature_loss(name, student, teacher))
    assert_close(to_student, reference.gradient(lambda a: reference.feature_loss(name, a, teacher), student))
    assert not to_teacher.any()


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty_and_reduction_is_its_equation(penalty, reduction, chunk):
    student, teacher = random_map(1, 2, 3, 4, scale=2), random_map(2, 2, 6, 4, scale=2)
    settings = {"alpha": 0.3, "penalty": penalty, "delta": 0.4, "reduction": reduction}
    value, (to_student, _) = value_and_gradients(
        lambda a, r: feature_loss("bidirectional", a, r, chunk=chunk, **settings),
        student,
        teacher,
        compiled=True,
    )

    def expected(a):
        return reference.feature_loss("bidirectional", a, teacher, **settings)

    assert_close(value, expected(student))
    assert_close(to_student, reference.gradient(expected, student))


@pytest.mark.parametrize("chunk", [0, 2])
def test_the_loss_of_keras_is_the_mean_of_its_samples_by_their_weights(chunk):
    student, teacher = random_map(1, 2, 3, 4, scale=2), random_map(2, 2, 6, 4, scale=2)
    loss, weights = FeatureLoss(map_reduction="sum", chunk=chunk), np.array([1.0, 3.0], np.float32)
    value, (to_student, to_teacher) = value_and_gradients(
        lambda a, r: loss(r, a, sample_weight=weights), student, teacher
    )

    def expected(a):
        samples = zip(weights, a, teacher, strict=True)
        return sum(
            float(weight)
            * reference.feature_loss("bidirectional", one[None], other[None], reduction="sum")
            / 2
            for weight, one, other in samples
        )

    assert_close(value, expected(student))
    assert_close(to_student, reference.gradient(expected, student))
    assert not to_teacher.any()


def test_direct_loss_is_its_equation():
    student, teacher = random_map(1, 2, 3, 4, scale=2), random_map(2, 2, 3, 4, scale=2)
    value, (to_student, _) = value_and_gradients(lambda a, r: feature_loss("direct", a, r), student, teacher)
    assert_close(value, reference.feature_loss("direct", student, teacher))
    expected = reference.gradient(lambda a: reference.feature_loss("direct", a, teacher), student)
    assert_close(to_student, expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["bidirectional", "jaccard", "mmd", "infonce"])
def test_losses_and_their_gradients_are_their_equations(name, normalization):
    student, teacher = (random_map(seed, 3, shape, 4, scale=2) + 0.1 for seed, shape in ((1, 3), (2, 6)))
    value, (to_student, to_teacher) = value_and_gradients(
        lambda a, r: feature_loss(name, a, r, normalization=normalization), student, teacher, compiled=True
    )

    def expected(a):
        return reference.feature_loss(name, a, teacher, normalization=normalization)

    assert_close(value, expected(student))
    assert_close(to_student, reference.gradient(expected, student), 1e-4)
    assert not to_teacher.any()


@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize("locality", [0.0, 8.0, 50.0])
def test_local_loss_and_its_gradient_are_their_equation(locality, chunk):
    student, teacher = random_map(1, 2, 2, 1, 2, 4, scale=2), random_map(2, 2, 1, 2, 3, 4, scale=2)
    value, (to_student, to_teacher) = value_and_gradients(
        lambda a, r: feature_loss("local", a, r, chunk=chunk, locality=locality), student, teacher
    )

    def expected(a):
        return reference.feature_loss("local", a, teacher, locality=locality)

    assert_close(value, expected(student))
    assert_close(to_student, reference.gradient(expected, student), 1e-4)
    assert not to_teacher.any()


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["unidirectional", "local"])
def test_entropy_and_variation_are_their_equations(name, normalization, chunk):
    student, teacher = random_map(1, 2, 2, 1, 2, 4, scale=2), random_map(2, 2, 1, 2, 3, 4, scale=2)
    settings = {"alpha": 0.7, "normalization": normalization}
    health = pooling_health(name, student, teacher, chunk=chunk, **settings)
    assert_close(
        float(health["pooling_entropy"]), reference.pooling_entropy(name, student, teacher, **settings)
    )
    assert_close(float(health["map_variation"]), reference.map_variation(student, normalization))


def test_no_gradient_flows_through_entropy_and_variation():
    maps = random_map(1, 2, 3, 4), random_map(2, 2, 6, 4)
    _, gradients = value_and_gradients(
        lambda a, r: ops.sum(a) + sum(pooling_health("bidirectional", a, r).values()), *maps, compiled=True
    )
    np.testing.assert_array_equal(gradients[0], np.ones_like(maps[0]))
    assert not gradients[1].any()


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("alpha", [0, 1e-30, 1e4])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_nothing_overflows(level, alpha, chunk):
    constant = np.full((2, 3, 4), level, np.float32)
    random = random_map(1, 2, 6, 4, scale=level)
    value, gradients = value_and_gradients(
        lambda a, r: feature_loss("bidirectional", a, r, alpha, chunk=chunk), random, constant, compiled=True
    )
    assert np.isfinite(value)
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_layer_pools_in_float32_under_every_policy(policy):
    observed, future = random_map(1, 2, 3, 4), random_map(2, 2, 6, 4)
    expected = BidirectionalAttentionPooling()([observed, future])
    pooled = BidirectionalAttentionPooling(dtype=policy)([observed, future])
    for name, values in expected.items():
        assert keras.backend.standardize_dtype(pooled[name].dtype) == "float32"
        np.testing.assert_array_equal(ops.convert_to_numpy(pooled[name]), ops.convert_to_numpy(values))


def test_layer_in_a_saved_model(tmp_path):
    inputs = [keras.Input((2, 2, 3, 4)), keras.Input((1, None, 3, 4))]
    outputs = BidirectionalAttentionPooling(0.3, 5)(inputs)
    assert outputs["a_in_r"].shape == (None, 12, 4)
    assert outputs["r_in_a"].shape == (None, None, 4)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "pooling.keras")
    loaded = keras.saving.load_model(tmp_path / "pooling.keras")
    layer = loaded.layers[-1]
    assert (layer.alpha, layer.chunk) == (0.3, 5)
    maps = [random_map(1, 2, 2, 2, 3, 4), random_map(2, 2, 1, 3, 3, 4)]
    before, after = model(maps), loaded(maps)
    for name, values in before.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(values), ops.convert_to_numpy(after[name]))


@pytest.mark.parametrize("function", [attention_pool, bidirectional_attention_pool])
@pytest.mark.parametrize(
    ("second", "message"), [((2, 3, 5), "channels.*4 and 5"), ((3, 3, 4), "batch.*2 and 3")]
)
def test_maps_that_do_not_fit_are_refused(function, second, message):
    with pytest.raises(ValueError, match=message):
        function(random_map(1, 2, 3, 4), random_map(2, *second))


def test_i3d_has_deepminds_names_on_any_backend(tmp_path):
    """PyTorch allows no dots in the names of parameters."""
    network = build_i3d(5, (8, 32, 32, 3), width=0.0625)
    layer = network.get_layer("Mixed_4f.Branch_0.Conv3d_0a_1x1.conv_3d")
    assert [tuple(weight.shape) for weight in layer.weights] == [(1, 1, 1, 33, 16)]
    weights = network.get_weights()
    network.save_weights(tmp_path / "i3d.weights.h5")
    network.set_weights([np.full_like(values, 0.5) for values in weights])
    network.load_weights(tmp_path / "i3d.weights.h5")
    for values, expected in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(values, expected)
