"""The small network on frozen features: what it gives, what it normalises, and that it learns."""

import keras
import numpy as np
import pytest

from kdant_tf.models.baselines import FEATURES3D, build_features3d

pytestmark = pytest.mark.slow

SHAPE = (2, 3, 3, 8)


def test_it_has_logits_and_a_map_of_the_width() -> None:
    network = build_features3d(4, SHAPE, width=0.125)
    assert network.output["logits"].shape == (None, 4)
    assert network.output[FEATURES3D].shape == (None, 2, 3, 3, 16)


def test_it_does_not_matter_in_what_units_features_come() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (16, *SHAPE)).astype("float32")
    outputs = []
    for scale in (1.0, 100.0):
        keras.utils.set_random_seed(0)
        network = build_features3d(4, SHAPE, width=0.125, dropout=0.0)
        outputs.append(network(maps * scale, training=True)["logits"].numpy())
    np.testing.assert_allclose(*outputs, rtol=2e-2, atol=2e-2)


def test_it_learns_what_moves_when() -> None:
    """Two classes that differ in the order of their frames alone: the mean over time knows nothing."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    maps = generator.normal(0, 0.1, (64, *SHAPE)).astype("float32")
    labels = np.arange(64) % 2
    for clip, label in zip(maps, labels, strict=True):
        clip[label] += 1.0
    network = build_features3d(2, SHAPE, width=0.125, dropout=0.0)
    logits = keras.Model(network.input, network.output["logits"])
    loss = keras.losses.SparseCategoricalCrossentropy(True)
    logits.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=False)
    logits.fit(maps, labels, batch_size=16, epochs=30, verbose=0)
    assert (logits(maps).numpy().argmax(-1) == labels).mean() > 0.95


def test_a_saved_one_gives_the_same(tmp_path) -> None:
    network = build_features3d(4, SHAPE, width=0.125)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    maps = np.random.default_rng(0).uniform(0, 1, (2, *SHAPE)).astype("float32")
    np.testing.assert_array_equal(network(maps)["logits"], loaded(maps)["logits"])
