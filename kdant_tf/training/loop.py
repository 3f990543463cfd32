"""The training loop: batches of an epoch through `strategy.run`, ordinary Keras callbacks around it."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.training.batch_norm import agree_on_statistics
from kdant_tf.training.distiller import COUNTS, Distiller
from kdant_tf.training.epochs_ahead import EpochsAhead
from kdant_tf.training.finite import check_finite
from kdant_tf.training.position import Position
from kdant_tf.training.shares import distribute
from kdant_tf.training.workers import count_workers
from kdant_tf.training.xla import STEP
from tf_records.records import Records


def fit(
    distiller: Distiller,
    strategy: tf.distribute.Strategy,
    batches: Callable[[int], tf.data.Dataset],
    *,
    epochs: int,
    learning_rate: Callable[[int], float],
    callbacks: keras.callbacks.CallbackList,
    position: Position | None = None,
    records: Records | None = None,
) -> dict[str, float]:
    """Trains up to `epochs`; returns the last epoch's logs.

    Keras' own fit does not run under MultiWorkerMirroredStrategy; this loop does, and says how long
    it waits for data.

    Args:
        distiller: compiled with an optimizer, under `strategy`'s scope.
        strategy: where the step runs.
        batches: epoch → dataset of global batches, or of this worker's share of them; of the epoch that
            `position` lies in, those that are left of it.
        epochs: of the whole training, those before `position` included.
        learning_rate: epoch → rate.
        callbacks: told of epochs and steps; the logs are described at `EpochMeter.logs`. One that sets
            `stop_training` ends the training after the epoch.
        position: where to begin, by default at the start; it is kept up to date.
        records: where the batches come from, so that an error can name the damaged shard.
    """
    position = Position() if position is None else position
    step = _compile_step(distiller, strategy)
    logs: dict[str, float] = {}
    ahead = EpochsAhead(
        lambda epoch: iter(distribute(strategy, batches(epoch))),
        records,
        range(position.epoch, epochs),
        (callbacks.params or {}).get("steps", 0),
        position.step,
    )
    distiller.stop_training = position.stopped
    callbacks.on_train_begin()
    with contextlib.closing(ahead):
        while position.epoch < epochs and not distiller.stop_training:
            epoch = position.epoch
            distiller.optimizer.learning_rate = learning_rate(epoch)
            callbacks.on_epoch_begin(epoch)
            for batch in position.meter.timed(ahead.batches(epoch)):
                number = position.step
                callbacks.on_train_batch_begin(number)
                losses = {name: float(value) for name, value in step(batch).items()}
                check_finite(losses, epoch, number)
                position.add(losses, _batch_size(strategy, batch))
                callbacks.on_train_batch_end(number, position.meter.logs())
            logs = {**position.meter.logs(), "learning_rate": learning_rate(epoch)}
            position.begin_next_epoch()
            agree_on_statistics(distiller.student, strategy)
            callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
    return logs


def _compile_step(distiller: Distiller, strategy: tf.distribute.Strategy) -> Callable[[Any], dict[str, Any]]:
    # XLA compiles no collective of several devices: there the distiller has each device's part compiled.
    whole = distiller.xla == STEP and strategy.num_replicas_in_sync == 1

    @tf.function(reduce_retracing=True, autograph=False, jit_compile=whole or None)
    def step(batch: Any) -> dict[str, Any]:
        losses = strategy.run(distiller.train_step, args=(batch,))
        return {
            name: strategy.reduce("SUM" if name in COUNTS else "MEAN", value, axis=None)
            for name, value in losses.items()
        }

    return step


def _batch_size(strategy: tf.distribute.Strategy, batch: dict[str, Any]) -> int:
    local = sum(int(labels.shape[0]) for labels in strategy.experimental_local_results(batch["label"]))
    return local * count_workers(strategy)
