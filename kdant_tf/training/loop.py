"""The training loop: batches of an epoch through `strategy.run`, ordinary Keras callbacks around it."""

import concurrent.futures
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.training.distiller import Distiller
from tf_records.errors import KdantError
from tf_records.records import Records, iterate_batches

COUNTS = ("correct", "labeled")
STEPS_AHEAD = 8


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
    ahead = _EpochsAhead(
        lambda epoch: iter(strategy.experimental_distribute_dataset(batches(epoch))),
        records,
        epochs,
        (callbacks.params or {}).get("steps", 0),
    )
    callbacks.on_train_begin()
    for epoch in epochs:
        distiller.optimizer.learning_rate = learning_rate(epoch)
        callbacks.on_epoch_begin(epoch)
        meter = _EpochMeter()
        for number, batch in enumerate(meter.timed(ahead.batches(epoch))):
            callbacks.on_train_batch_begin(number)
            losses = {name: float(value) for name, value in step(batch).items()}
            _check_finite(losses, epoch, number)
            meter.add(losses, _batch_size(strategy, batch))
            callbacks.on_train_batch_end(number, meter.logs())
        logs = {**meter.logs(), "learning_rate": learning_rate(epoch)}
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
    return logs


class _EpochsAhead:
    """One epoch's batches after the other's; the next epoch is begun while the last steps of this one run.

    Tracing its pipeline and filling its buffers would otherwise be waited for at the start of every epoch,
    and taking a pipeline down, which can take seconds, at the end. Beginning the next no earlier keeps one
    shuffle buffer full at a time.

    Args:
        start: epoch → an iterator of its batches.
        records: where they come from, so that an error can name the damaged shard.
        epochs: that will be asked for, in order.
        steps: an epoch.
    """

    def __init__(
        self, start: Callable[[int], Iterator[Any]], records: Records | None, epochs: range, steps: int
    ) -> None:
        self._start = start
        self._records = records
        self._epochs = epochs
        self._begin_at = max(0, steps - STEPS_AHEAD)
        self._open: dict[int, Iterator[Any]] = {}
        self._iterators: dict[int, Iterator[Any]] = {}  # kept, so that they do not end with their last batch

    def batches(self, epoch: int) -> Iterator[Any]:
        if epoch not in self._open:
            self._begin(epoch)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for number, batch in enumerate(self._open[epoch]):
                if number == self._begin_at and epoch + 1 in self._epochs:
                    pool.submit(self._begin, epoch + 1)  # what fails there fails again when it is asked for
                yield batch

    def _begin(self, epoch: int) -> None:
        """Reads the first batch; closes the epochs before the last."""
        for done in [done for done in self._open if done < epoch - 1]:
            del self._open[done], self._iterators[done]
        iterator = self._iterators[epoch] = self._start(epoch)
        batches = iterate_batches(iterator, self._records, "train")
        self._open[epoch] = itertools.chain(list(itertools.islice(batches, 1)), batches)


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


def _check_finite(losses: dict[str, float], epoch: int, step: int) -> None:
    if not math.isfinite(losses["loss"]):
        raise KdantError(
            f"The loss is no longer finite in epoch {epoch + 1}, step {step + 1} (classification "
            f"{losses['classification_loss']}, features {losses['feature_loss']}). Lower --learning-rate or "
            f"--feature-weight; checkpoints hold the epochs before."
        )


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
