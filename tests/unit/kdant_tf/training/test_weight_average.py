"""The average of the weights is its formula on one device and on two, and is what is validated and saved."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.config import TrainConfig
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import fit
from kdant_tf.training.optimizer import make_optimizer
from kdant_tf.training.strategy import make_strategy
from kdant_tf.training.train import train
from kdant_tf.training.weight_average import SwapWeights, WeightAverage

EPOCHS, DECAY = 2, 0.35


def batches(epoch: int) -> tf.data.Dataset:
    rng = np.random.default_rng(epoch)
    clips = rng.standard_normal((24, 4)).astype(np.float32) * np.linspace(0.1, 2, 24)[:, None]
    samples = {"observed": clips.astype(np.float32), "label": (clips[:, 0] > 0).astype(np.int64)}
    return tf.data.Dataset.from_tensor_slices(samples).batch(8, drop_remainder=True)


class Watch(keras.callbacks.Callback):
    """Keeps the weights after every step, and those that are seen at an epoch's end."""

    def __init__(self, network: keras.Model, strategy: tf.distribute.Strategy) -> None:
        super().__init__()
        self.network, self.strategy = network, strategy
        self.steps = [self.read()]
        self.ends: list[list[np.ndarray]] = []

    def read(self) -> list[np.ndarray]:
        """Mean over devices, in which only moving statistics differ."""
        values = [self.strategy.experimental_local_results(each.value) for each in self.network.weights]
        return [np.mean([np.asarray(each, np.float64) for each in devices], axis=0) for devices in values]

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.read())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append([each.numpy() for each in self.network.weights])


def average_of(steps: list[np.ndarray], decay: float) -> np.ndarray:
    average = steps[0]
    for t, weights in enumerate(steps[1:], start=1):
        keep = min(decay, (1 + t) / (10 + t))
        average = keep * average + (1 - keep) * weights
    return average


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_an_epoch_ends_with_the_average_of_all_updates(devices):
    keras.utils.set_random_seed(0)
    strategy = make_strategy(devices)
    with strategy.scope():
        clip = layers.Input((4,))
        x = layers.BatchNormalization(momentum=0.5, name="norm")(layers.Dense(5, use_bias=False)(clip))
        network = keras.Model(clip, {"logits": layers.Dense(2)(layers.ReLU()(x))})
        distiller = Distiller(network)
        distiller.compile(optimizer=make_optimizer(TrainConfig()))
        distiller.optimizer.build(distiller.trainable_variables)
        average = WeightAverage(network.weights, DECAY)
    watch, swap = Watch(network, strategy), SwapWeights(average)
    callbacks = keras.callbacks.CallbackList([swap, watch, swap], model=distiller)
    rate = lambda epoch, step: 0.3  # noqa: E731
    options = {"epochs": EPOCHS, "learning_rate": rate, "callbacks": callbacks}
    fit(distiller, strategy, batches, average=average, **options)
    assert len(watch.steps) == 1 + 3 * EPOCHS
    names = [each.path for each in network.weights]
    assert {"norm/moving_mean", "norm/moving_variance", "norm/gamma"} < set(names)
    for number, name in enumerate(names):
        steps = [weights[number] for weights in watch.steps]
        for epoch, seen in enumerate(watch.ends, start=1):
            expected = average_of(steps[: 1 + 3 * epoch], DECAY)
            np.testing.assert_allclose(seen[number], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.abs(steps[-1] - watch.ends[-1][number]).max() > 1e-4, name
        # The training goes on with its own weights, on every device.
        for device in strategy.experimental_local_results(network.weights[number].value):
            np.testing.assert_allclose(device.numpy(), steps[-1], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.3], ids=["last", "best"])
def test_the_average_is_what_is_validated_and_saved(record_folder, tmp_path, monkeypatch, fraction):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "e2e"))
    steps: list[list[np.ndarray]] = []
    validated: list[list[np.ndarray]] = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.on_train_batch_end(0)

        def on_train_batch_end(self, batch, logs=None):
            steps.append([np.asarray(each, np.float64) for each in self.model.student.get_weights()])

        def on_epoch_end(self, epoch, logs=None):
            validated.append(self.model.student.get_weights())

    config = TrainConfig(
        model="killed_training:build",
        crop=32,
        batch_size=4,
        epochs=1,
        learning_rate=0.1,
        ema_decay=DECAY,
        validation_fraction=fraction,
    )
    result = train(record_folder, tmp_path / "run", config, callbacks=[Look()])
    saved = keras.saving.load_model(result.run.model_path).get_weights()
    assert len(steps) > 2
    # The last of them is the state of the dropout's draws, which is no weight.
    for number in range(len(saved) - 1):
        expected = average_of([weights[number] for weights in steps], DECAY)
        np.testing.assert_allclose(validated[0][number], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(saved[number], validated[0][number])
    assert np.abs(saved[0] - steps[-1][0]).max() > 1e-4
