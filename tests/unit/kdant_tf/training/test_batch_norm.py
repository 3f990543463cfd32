"""Batch normalisation in training: over all devices, frozen, and plain in what is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.config import ConfigError, TrainConfig
from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.networks import build_network
from kdant_tf.training.assembly import agree_on_statistics, plain_batch_norm, prepare_batch_norm
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import fit
from kdant_tf.training.strategy import make_strategy
from tf_records.errors import RunError

pytestmark = pytest.mark.slow

SHAPE = (4, 32, 32, 3)
STEPS = 20
RATE = 0.01


def small_config(**settings: object) -> TrainConfig:
    return TrainConfig(**{"width": 0.0625, "crop": 32, "dropout": 0.0, **settings})


def small_network() -> keras.Model:
    """Two convolutions with batch normalisation; I3D's last maps are too small here."""
    x = clip = layers.Input(SHAPE)
    for name in ("first", "second"):
        x = layers.Conv3D(8, 3, strides=2, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"{name}_batch_norm")(x))
    logits = layers.Dense(3, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "maps": x})


def make_distiller(strategy: tf.distribute.Strategy, config: TrainConfig) -> Distiller:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = small_network()
        prepare_batch_norm(network, config)
        distiller = Distiller(network)
        distiller.compile(optimizer=keras.optimizers.SGD(RATE, momentum=0.9))
        distiller.optimizer.build(distiller.trainable_variables)
    return distiller


def batches(epoch: int) -> tf.data.Dataset:
    rng = np.random.default_rng(epoch)
    samples = {
        "observed": rng.uniform(-1, 1, (4 * STEPS, *SHAPE)).astype(np.float32),
        "label": rng.integers(0, 3, 4 * STEPS),
    }
    return tf.data.Dataset.from_tensor_slices(samples).batch(4, drop_remainder=True)


def train(distiller: Distiller, strategy: tf.distribute.Strategy) -> None:
    callbacks = keras.callbacks.CallbackList([], model=distiller)
    fit(distiller, strategy, batches, epochs=1, learning_rate=lambda epoch, step: RATE, callbacks=callbacks)


def weights_of(network: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in network.weights}


def copies_of(variable: keras.Variable, strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    return [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]


def test_synchronised_two_devices_give_the_weights_of_one_after_20_steps():
    config = small_config(sync_batch_norm=True)
    one = make_distiller(make_strategy("cpu", "one"), config)
    before = weights_of(one.student)
    train(one, make_strategy("cpu", "one"))
    two = make_distiller(make_strategy("cpu:2"), config)
    train(two, make_strategy("cpu:2"))
    after = weights_of(two.student)
    for path, expected in weights_of(one.student).items():
        np.testing.assert_allclose(after[path], expected, atol=1e-5, err_msg=path)
    assert max(np.abs(after[path] - before[path]).max() for path in after) > 1e-2


@pytest.mark.parametrize("synchronised", [False, True])
def test_each_device_has_its_own_statistics_until_they_agree(synchronised):
    strategy = make_strategy("cpu:2")
    distiller = make_distiller(strategy, small_config(sync_batch_norm=synchronised))
    step = tf.function(lambda batch: strategy.run(distiller.update, args=(batch,)))
    for batch in strategy.experimental_distribute_dataset(batches(0).take(3)):
        step(batch)
    moving = [each for each in distiller.student.variables if "moving_" in each.path]
    before = [copies_of(each, strategy) for each in moving]
    assert any((first != second).any() for first, second in before) is not synchronised
    agree_on_statistics(distiller.student, strategy)
    for variable, copies in zip(moving, before, strict=True):
        mean = np.mean(np.asarray(copies, np.float64), axis=0)
        for copy in copies_of(variable, strategy):
            np.testing.assert_allclose(copy, mean, rtol=1e-6, atol=1e-9)


def test_frozen_it_keeps_statistics_scale_and_shift():
    strategy = make_strategy("cpu", "one")
    distiller = make_distiller(strategy, small_config(freeze_batch_norm=True, init="x.keras"))
    before = weights_of(distiller.student)
    batch = next(iter(batches(0)))
    as_evaluated = distiller.compute_losses(batch, training=False)["loss"].numpy()
    np.testing.assert_allclose(distiller.compute_losses(batch)["loss"].numpy(), as_evaluated, rtol=1e-5)
    train(distiller, strategy)
    for path, values in weights_of(distiller.student).items():
        if "batch_norm" in path:
            np.testing.assert_array_equal(values, before[path], err_msg=path)
    kernels = [path for path in before if path.endswith("/kernel")]
    assert all((weights_of(distiller.student)[path] != before[path]).any() for path in kernels)


@pytest.mark.parametrize(
    "settings", [{"sync_batch_norm": True}, {"freeze_batch_norm": True, "init": "x.keras"}]
)
def test_what_is_saved_is_a_plain_network(settings, tmp_path):
    network = build_i3d(3, SHAPE, width=0.0625)
    plain = network.to_json()
    changed = prepare_batch_norm(network, small_config(**settings))
    assert len(changed) == 57
    assert network.to_json() != plain
    with plain_batch_norm(changed):
        assert network.to_json() == plain
        network.save(tmp_path / "model.keras")
    assert network.to_json() != plain
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert all(layer.trainable for layer in loaded.layers)
    clip = np.zeros((1, *SHAPE), np.float32)
    np.testing.assert_array_equal(
        loaded(clip, training=False)["logits"], network(clip, training=False)["logits"]
    )


def test_layers_that_were_frozen_or_synchronised_before_are_left_alone(tiny_backbone):
    """The backbone of frame-mlp never learns, so there is nothing to synchronise."""
    config = TrainConfig(model="frame-mlp", backbone=tiny_backbone, crop=32, sync_batch_norm=True)
    network = build_network(config, 3, SHAPE)
    with pytest.raises(RunError, match=r"`sync_batch_norm` is for .* and frame-mlp has none"):
        prepare_batch_norm(network, config)


def test_tsn_is_reached_within_its_backbone(tiny_backbone):
    config = TrainConfig(model="tsn", backbone=tiny_backbone, crop=32, segments=2, sync_batch_norm=True)
    changed = prepare_batch_norm(build_network(config, 3, SHAPE), config)
    assert [layer.synchronized for layer in changed] == [True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_batch_norm": True}, r"`freeze_batch_norm` should be off where `init` is random"),
        ({"freeze_batch_norm": True, "init": "random"}, r"off where `init` is random"),
        (
            {"freeze_batch_norm": True, "sync_batch_norm": True, "init": "kinetics"},
            r"`freeze_batch_norm` should be off beside sync_batch_norm",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)
