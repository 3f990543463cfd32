"""Batch normalisation folded away: the same outputs, and what has to stay."""

import keras
import numpy as np
import pytest
from keras import layers

from kdant_tf.models.baselines import build_frame_mlp, build_tsn
from kdant_tf.models.batch_norm_folding import fold_batch_norm
from kdant_tf.models.i3d import build_i3d, split_i3d
from kdant_tf.private_apis import layers_within, nodes_of

pytestmark = pytest.mark.slow


def with_statistics(network: keras.Model) -> keras.Model:
    """Weights as after a training: no mean is 0, no variance 1."""
    generator = np.random.default_rng(0)
    for layer in layers_within(network):
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return network


def norms_in(network: keras.Model) -> list[str]:
    """Normalisations that are called."""
    nodes = nodes_of(network)
    here = [n.operation.name for n in nodes if isinstance(n.operation, layers.BatchNormalization)]
    inner = {id(node.operation): node.operation for node in nodes if isinstance(node.operation, keras.Model)}
    return sorted([*here, *(name for model in inner.values() for name in norms_in(model))])


def check_same(network: keras.Model) -> keras.Model:
    before = [weight.copy() for weight in network.get_weights()]
    folded = fold_batch_norm(network)
    shape = [2, *(8 if size is None else size for size in network.input.shape[1:])]
    inputs = np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")
    expected, given = network(inputs, training=False), folded(inputs, training=False)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, given
    )
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert folded.name == network.name
    return folded


def test_all_of_i3d_is_folded():
    network = with_statistics(build_i3d(3, (4, 32, 32, 3), width=1 / 16))
    assert len(norms_in(network)) == 57
    assert norms_in(check_same(network)) == []


def test_a_stem_shares_its_layers_with_the_network_it_was_cut_from():
    network = with_statistics(build_i3d(3, (4, 32, 32, 3), width=1 / 16))
    for part in split_i3d(network):
        assert norms_in(check_same(part)) == []


@pytest.mark.parametrize("build", [build_tsn, build_frame_mlp])
def test_networks_within_networks(tiny_backbone: str, build):
    network = with_statistics(build(3, (4, 32, 32, 3), backbone=tiny_backbone))
    assert norms_in(network) == ["norm"]
    assert norms_in(check_same(network)) == []


def test_layers_of_every_kind():
    x = inputs = layers.Input((12, 12, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="with_bias", bias_initializer="ones")(x))
    x = layers.BatchNormalization(scale=False)(layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2)(x))
    x = layers.Reshape((-1, 8))(layers.ReLU()(x))
    x = layers.BatchNormalization(center=False)(layers.Conv1D(6, 3, padding="same", use_bias=False)(x))
    x = layers.BatchNormalization(axis=2)(layers.Dense(5)(x))
    x = layers.Reshape((4, 4, 1, 5))(x)
    x = layers.BatchNormalization(epsilon=0.1)(layers.Conv3D(3, (2, 2, 1))(x))
    network = with_statistics(keras.Model(inputs, x))
    assert norms_in(check_same(network)) == []


def test_what_has_to_stay_stays():
    inputs = layers.Input((6, 6, 3))
    shared = layers.Conv2D(4, 1, name="shared")
    seen_twice, given_out = layers.Conv2D(4, 1)(inputs), layers.Conv2D(4, 1)(inputs)
    branches = [
        layers.BatchNormalization(name="first")(inputs),
        layers.BatchNormalization(name="after_relu")(layers.Conv2D(4, 1, activation="relu")(inputs)),
        layers.BatchNormalization(name="other_axis", axis=1)(layers.Conv2D(4, 1)(inputs)),
        layers.BatchNormalization(name="of_shared")(shared(inputs)),
        shared(inputs),
        layers.BatchNormalization(name="of_two_readers")(seen_twice),
        seen_twice,
        layers.BatchNormalization(name="of_an_output")(given_out),
        layers.BatchNormalization(name="folded")(layers.Conv2D(4, 1)(inputs)),
    ]
    network = with_statistics(keras.Model(inputs, {"all": layers.Concatenate()(branches), "one": given_out}))
    stay = ["after_relu", "first", "of_an_output", "of_shared", "of_two_readers", "other_axis"]
    assert norms_in(check_same(network)) == stay
