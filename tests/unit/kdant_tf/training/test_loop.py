"""The loop around the step: logs, learning rates, and an end before the last epoch."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdant_tf.runs import METRICS
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import EpochMeter, Position, fit
from kdant_tf.training.strategy import make_strategy

RATES = (0.1, 0.05, 0.02)


def tiny_distiller(strategy: tf.distribute.Strategy) -> Distiller:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        clip = layers.Input((4,))
        student = keras.Model(clip, {"logits": layers.Dense(2)(clip)})
        distiller = Distiller(student)
        distiller.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        distiller.optimizer.build(student.trainable_variables)
    return distiller


def batches(epoch: int) -> tf.data.Dataset:
    rng = np.random.default_rng(epoch)
    clips = rng.standard_normal((8, 4)).astype(np.float32)
    samples = {"observed": clips, "label": (clips[:, 0] > 0).astype(np.int64)}
    return tf.data.Dataset.from_tensor_slices(samples).batch(4, drop_remainder=True)


def run_epochs(distiller, strategy, epochs: int, *callbacks: keras.callbacks.Callback) -> dict[str, float]:
    return fit(
        distiller,
        strategy,
        batches,
        epochs=epochs,
        learning_rate=lambda epoch, step: RATES[epoch],
        callbacks=keras.callbacks.CallbackList(list(callbacks), model=distiller),
    )


class Recorder(keras.callbacks.Callback):
    """Keeps the logs of every epoch and the rate the optimizer had."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []
        self.rates: list[float] = []
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
def test_logs_are_means_over_an_epoch(devices):
    strategy = make_strategy(devices)
    distiller, recorder = tiny_distiller(strategy), Recorder()
    kernel = distiller.student.weights[0].numpy()
    fit(
        distiller,
        strategy,
        batches,
        epochs=1,
        learning_rate=lambda epoch, step: 0.0,
        callbacks=keras.callbacks.CallbackList([recorder], model=distiller),
    )
    np.testing.assert_array_equal(distiller.student.weights[0].numpy(), kernel)
    losses = [distiller.compute_losses(batch, training=False) for batch in batches(0)]
    (logs,) = recorder.epochs
    assert recorder.batches == 2
    np.testing.assert_allclose(logs["loss"], np.mean([float(loss["loss"]) for loss in losses]), rtol=1e-5)
    assert logs["accuracy"] == sum(float(loss["correct"]) for loss in losses) / 8
    assert 0 <= logs["data_wait_share"] <= 1
    assert set(METRICS) <= set(logs)


def test_each_epoch_has_its_learning_rate():
    strategy = make_strategy("cpu")
    recorder = Recorder()
    logs = run_epochs(tiny_distiller(strategy), strategy, 3, recorder)
    np.testing.assert_allclose(recorder.rates, RATES, rtol=1e-6)
    assert [epoch["learning_rate"] for epoch in recorder.epochs] == list(RATES)
    assert logs == recorder.epochs[-1]


def test_each_step_has_its_learning_rate_also_where_an_epoch_is_gone_on_with():
    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append((batch, float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))))

        def on_train_batch_end(self, batch, logs=None):
            logged.append(logs["learning_rate"])

    seen, logged = [], []
    strategy, position = make_strategy("cpu"), Position()
    position.meter.steps = 1  # of the two; the numbers of the first are left out here
    position.meter.sums = dict.fromkeys(("loss", "correct", "labeled"), 1.0)
    distiller = tiny_distiller(strategy)
    logs = fit(
        distiller,
        strategy,
        lambda epoch: batches(epoch).skip(1 if epoch == 0 else 0),
        epochs=2,
        learning_rate=lambda epoch, step: 0.5 / (1 + 2 * epoch + step),
        callbacks=keras.callbacks.CallbackList([Rates()], model=distiller),
        position=position,
    )
    assert seen == [(1, 0.25), (0, pytest.approx(0.5 / 3)), (1, 0.125)]
    assert logged == [0.25, 0.5 / 3, 0.125]
    assert logs["learning_rate"] == 0.125


class StopsAfter(keras.callbacks.Callback):
    """As EarlyStopping does it."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def test_a_callback_can_end_the_training():
    strategy, recorder = make_strategy("cpu"), Recorder()
    run_epochs(tiny_distiller(strategy), strategy, 3, recorder, StopsAfter(1))
    assert len(recorder.epochs) == 2


def test_without_a_labelled_sample_there_is_no_accuracy():
    meter = EpochMeter()
    meter.add({"loss": 2.0, "correct": 0.0, "labeled": 0.0}, clips=4)
    assert math.isnan(meter.logs()["accuracy"])
    assert meter.logs()["loss"] == 2.0
    meter.add({"loss": 1.0, "correct": 1.0, "labeled": 2.0}, clips=4)
    assert meter.logs()["accuracy"] == 0.5
