"""The training loop: batches of an epoch through `strategy.run`, ordinary Keras callbacks around it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.training.distiller import COUNTS, Distiller
from kdant_tf.training.epochs_ahead import EpochsAhead
from kdant_tf.training.finite import check_finite
from tf_records.records import Records


def fit(
    distiller: Distiller,
    strategy: tf.distribute.Strategy,
    batches: Callable[[int], tf.data.Dataset],
    *,
    epochs: range,
    learning_rate: Callable[[int], float],
    callbacks: keras.callbacks.CallbackList,
    records: Records | None = None,
) -> dict[str, float]:
    """Trains over `epochs`; returns the last epoch's logs.

    Keras' own fit does not run under MultiWorkerMirroredStrategy; this loop does, and says how long
    it waits for data.

    Args:
        distiller: compiled with an optimizer, under `strategy`'s scope.
        strategy: where the step runs.
        batches: epoch → dataset of global batches.
        epochs: numbers of the epochs to run; the first is not 0 when a run is resumed.
        learning_rate: epoch → rate.
        callbacks: told of epochs and steps; the logs are described at `_EpochMeter.logs`.
        records: where the batches come from, so that an error can name the damaged shard.
    """
    step = _compile_step(distiller, strategy)
    logs: dict[str, float] = {}
    ahead = EpochsAhead(
        lambda epoch: iter(strategy.experimental_distribute_dataset(batches(epoch))),
        records,
        epochs,
        (callbacks.params or {}).get("steps", 0),
    )
    callbacks.on_train_begin()
    with contextlib.closing(ahead):
        for epoch in epochs:
            distiller.optimizer.learning_rate = learning_rate(epoch)
            callbacks.on_epoch_begin(epoch)
            meter = _EpochMeter()
            for number, batch in enumerate(meter.timed(ahead.batches(epoch))):
                callbacks.on_train_batch_begin(number)
                losses = {name: float(value) for name, value in step(batch).items()}
                check_finite(losses, epoch, number)
                meter.add(losses, _batch_size(strategy, batch))
                callbacks.on_train_batch_end(number, meter.logs())
            logs = {**meter.logs(), "learning_rate": learning_rate(epoch)}
            callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
    return logs


class _EpochMeter:
    """Running means of an epoch, and how its time was spent."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.clips = 0
        self.waited_s = 0.0
        self.began_s = time.perf_counter()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, with the wait for each counted."""
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - asked_s
            if batch is None:
                return
            yield batch

    def add(self, values: dict[str, float], clips: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.clips += clips

    def logs(self) -> dict[str, float]:
        """Means of the losses over steps, accuracy over labelled samples, speed, share of time waiting."""
        elapsed_s = time.perf_counter() - self.began_s
        means = {name: total / self.steps for name, total in self.sums.items() if name not in COUNTS}
        return {
            **means,
            "accuracy": self.sums["correct"] / max(self.sums["labeled"], 1.0),
            "clips_per_second": self.clips / elapsed_s,
            "data_wait_share": self.waited_s / elapsed_s,
        }


def _compile_step(distiller: Distiller, strategy: tf.distribute.Strategy) -> Callable[[Any], dict[str, Any]]:
    @tf.function(reduce_retracing=True, autograph=False)
    def step(batch: Any) -> dict[str, Any]:
        losses = strategy.run(distiller.train_step, args=(batch,))
        return {
            name: strategy.reduce("SUM" if name in COUNTS else "MEAN", value, axis=None)
            for name, value in losses.items()
        }

    return step


def _batch_size(strategy: tf.distribute.Strategy, batch: dict[str, Any]) -> int:
    return sum(int(labels.shape[0]) for labels in strategy.experimental_local_results(batch["label"]))
