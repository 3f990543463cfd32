"""The training loop: batches of an epoch through `strategy.run`, ordinary Keras callbacks around it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.training.assembly import agree_on_statistics
from kdant_tf.training.distiller import Distiller, is_count
from kdant_tf.training.strategy import STEP, count_workers
from kdant_tf.training.weight_average import WeightAverage
from tf_records.errors import KdantError
from tf_records.records import Records, iterate_batches

# The next epoch's pipeline is begun so many steps before the end of this one's.
PREFETCH_STEPS = 8
# Loss scaling halves the scale for each gradient that overflowed: 15 in a row, from Keras' first scale.
_SMALLEST_SCALE = 1.0


def fit(
    distiller: Distiller,
    strategy: tf.distribute.Strategy,
    batches: Callable[[int], tf.data.Dataset],
    *,
    epochs: int,
    learning_rate: Callable[[int, int], float],
    callbacks: keras.callbacks.CallbackList,
    position: Position | None = None,
    records: Records | None = None,
    average: WeightAverage | None = None,
) -> dict[str, float]:
    """Trains up to `epochs`; returns the last epoch's logs.

    Keras' own fit does not run under MultiWorkerMirroredStrategy; this loop does, goes on from any step and
    says how long it waits for data.

    Args:
        distiller: compiled with an optimizer, under `strategy`'s scope.
        strategy: where the step runs.
        batches: epoch → dataset of global batches, or of this worker's share of them; of the epoch that
            `position` lies in, those that are left of it.
        epochs: of the whole training, those before `position` included.
        learning_rate: epoch and step in it, both counted from 0 → rate.
        callbacks: called at each epoch and step; the logs are described at `EpochMeter.logs`. One that sets
            `stop_training` ends the training after the epoch.
        position: where to begin, by default at the start; it is kept up to date.
        records: where the batches come from, so that an error can name the damaged shard.
        average: of the weights, kept up to date.
    """
    position = Position() if position is None else position
    step = _compile_step(distiller, strategy, average)
    logs: dict[str, float] = {}
    prefetcher = EpochPrefetcher(
        lambda epoch: iter(_distribute(strategy, batches(epoch))),
        records,
        range(position.epoch, epochs),
        (callbacks.params or {}).get("steps", 0),
        position.step,
    )
    distiller.stop_training = position.stopped
    callbacks.on_train_begin()
    with contextlib.closing(prefetcher):
        while position.epoch < epochs and not distiller.stop_training:
            epoch = position.epoch
            rate = learning_rate(epoch, position.step)
            distiller.optimizer.learning_rate = rate
            callbacks.on_epoch_begin(epoch)
            for batch in position.meter.timed(prefetcher.batches(epoch)):
                number = position.step
                if learning_rate(epoch, number) != rate:
                    distiller.optimizer.learning_rate = rate = learning_rate(epoch, number)
                callbacks.on_train_batch_begin(number)
                losses = {name: float(value) for name, value in step(batch).items()}
                check_finite(losses, epoch, number)
                clips, labels = _local_labels(strategy, batch)
                position.add(losses, clips * count_workers(strategy), labels)
                callbacks.on_train_batch_end(number, {**position.meter.logs(), "learning_rate": rate})
            logs = {**position.meter.logs(), "learning_rate": rate}
            position.begin_next_epoch()
            agree_on_statistics(distiller.student, strategy, average)
            callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
    return logs


class EpochMeter:
    """Running means of an epoch, and how its time was spent."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.clips = 0
        self.labels: dict[str, int] = {}  # samples of each; JSON has no other keys
        self.waited_s = 0.0
        self.spent_s = 0.0  # before a resumed epoch was resumed
        self.began_s = time.perf_counter()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, with the wait for each counted."""
        self.began_s = time.perf_counter()
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - asked_s
            if batch is None:
                return
            yield batch

    def add(self, values: dict[str, float], clips: int, labels: Iterable[int] = ()) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.clips += clips
        for label in labels:
            if label >= 0:
                self.labels[str(label)] = self.labels.get(str(label), 0) + 1

    def logs(self) -> dict[str, float]:
        """Means of the losses over steps, accuracy over labelled samples, speed, share of time waiting.

        "chance" is the share of the most frequent label among this worker's. Without a labelled sample it is
        NaN, as is the accuracy.
        """
        means = {name: total / self.steps for name, total in self.sums.items() if not is_count(name)}
        correct, labeled = self.sums["correct"], self.sums["labeled"]
        return {
            **means,
            "accuracy": correct / labeled if labeled else math.nan,
            **self._accuracies_of_heads(),
            "labeled": labeled,
            "chance": max(self.labels.values()) / sum(self.labels.values()) if self.labels else math.nan,
            "clips_per_second": self.clips / self._elapsed_s(),
            "data_wait_share": self.waited_s / self._elapsed_s(),
        }

    def _accuracies_of_heads(self) -> dict[str, float]:
        """Such as "accuracy_verb"; of several heads, "accuracy" is of all their labels."""
        names = [name.removeprefix("labeled_") for name in self.sums if name.startswith("labeled_")]
        counts = {name: (self.sums[f"correct_{name}"], self.sums[f"labeled_{name}"]) for name in names}
        return {f"accuracy_{name}": right / n if n else math.nan for name, (right, n) in counts.items()}

    def get_state(self) -> dict[str, Any]:
        names = ("sums", "steps", "clips", "labels", "waited_s")
        return {**{name: getattr(self, name) for name in names}, "spent_s": self._elapsed_s()}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _elapsed_s(self) -> float:
        return self.spent_s + time.perf_counter() - self.began_s


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """How far a training has come; the loop moves it on.

    Args:
        epoch: that runs or comes next, counted from 0.
        global_step: steps done in all epochs.
        meter: of the steps done in `epoch`.
        stopped: whether a callback, such as EarlyStopping, ended the training.
    """

    epoch: int = 0
    global_step: int = 0
    meter: EpochMeter = dataclasses.field(default_factory=EpochMeter)
    stopped: bool = False

    @property
    def step(self) -> int:
        """Steps done in `epoch`."""
        return self.meter.steps

    def add(self, values: dict[str, float], clips: int, labels: Iterable[int] = ()) -> None:
        """Counts one step, with its losses and counts."""
        self.meter.add(values, clips, labels)
        self.global_step += 1

    def begin_next_epoch(self) -> None:
        self.epoch += 1
        self.meter = EpochMeter()

    def get_state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "global_step": self.global_step,
            "stopped": self.stopped,
            "meter": self.meter.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.epoch, self.global_step = state["epoch"], state["global_step"]
        self.stopped = state["stopped"]
        self.meter = EpochMeter()
        self.meter.set_state(state["meter"])


class NotFiniteError(KdantError):
    """A loss or gradient that is infinite or not a number."""


def check_finite(losses: Mapping[str, float], epoch: int, step: int) -> None:
    """Refuses to go on from a step whose loss or gradient is not finite.

    Under loss scaling a gradient may overflow now and then: the optimizer leaves that step out.

    Args:
        losses: of `Distiller.update`.
        epoch, step: counted from 0.

    Raises:
        NotFiniteError: names the step and the loss's parts.
    """
    if not math.isfinite(losses["loss"]):
        what = "The loss is no longer finite"
    elif not math.isfinite(losses["gradient_norm"]):
        what = "The gradient is no longer finite"
    elif losses.get("loss_scale", _SMALLEST_SCALE) < _SMALLEST_SCALE:
        what = "The gradient overflows float16 at every scale of the loss"
    else:
        return
    raise NotFiniteError(
        f"{what} in epoch {epoch + 1}, step {step + 1} (loss {losses['loss']:.4g}, classification "
        f"{losses['classification_loss']:.4g}, features {losses['feature_loss']:.4g}, gradient norm "
        f"{losses['gradient_norm']:.4g}). Lower --learning-rate or --feature-weight, or give --clip-norm"
    )


class EpochPrefetcher:
    """One epoch's batches after the other's; the next epoch is begun while the last steps of this one run.

    Tracing its pipeline and filling its buffers would otherwise be waited for at the start of every epoch,
    and taking a pipeline down, which can take seconds, at the end. Beginning the next no earlier keeps one
    shuffle buffer full at a time.

    Args:
        start: epoch → an iterator of its batches.
        records: where they come from, so that an error can name the damaged shard.
        epochs: that will be asked for, in order.
        steps: an epoch.
        first_step: that the first of the epochs begins with.
    """

    def __init__(
        self,
        start: Callable[[int], Iterator[Any]],
        records: Records | None,
        epochs: range,
        steps: int,
        first_step: int = 0,
    ) -> None:
        self._start = start
        self._records = records
        self._epochs = epochs
        self._begin_at = max(0, steps - PREFETCH_STEPS)
        self._first_step = first_step
        # One thread begins the next pipeline while another still takes the last one down.
        self._pool = concurrent.futures.ThreadPoolExecutor(2)
        self._begun: dict[int, concurrent.futures.Future[Iterator[Any]]] = {}
        self._pipelines: dict[int, Iterator[Any]] = {}  # kept, so that they do not end with their last batch

    def batches(self, epoch: int) -> Iterator[Any]:
        self._begin(epoch)
        first = self._first_step if epoch == self._epochs.start else 0
        for number, batch in enumerate(self._begun.pop(epoch).result(), start=first):
            if number >= self._begin_at and epoch + 1 in self._epochs:
                self._begin(epoch + 1)  # what fails there is raised when it is asked for
            yield batch
        self._pool.submit(self._take_down, epoch)

    def close(self) -> None:
        """Waits for what the threads have begun, so that nothing of it runs beside a next training."""
        self._pool.shutdown(cancel_futures=True)
        self._pipelines.clear()

    def _begin(self, epoch: int) -> None:
        if epoch not in self._begun:
            self._begun[epoch] = self._pool.submit(self._read_first_batch, epoch)

    def _read_first_batch(self, epoch: int) -> Iterator[Any]:
        pipeline = self._pipelines[epoch] = self._start(epoch)
        batches = iterate_batches(pipeline, self._records, "train")
        return itertools.chain(list(itertools.islice(batches, 1)), batches)

    def _take_down(self, epoch: int) -> None:
        del self._pipelines[epoch]


def _compile_step(
    distiller: Distiller, strategy: tf.distribute.Strategy, average: WeightAverage | None = None
) -> Callable[[Any], dict[str, Any]]:
    # XLA compiles no collective of several devices: there the distiller has each device's part compiled.
    whole = distiller.xla == STEP and strategy.num_replicas_in_sync == 1

    def update(batch: Any) -> dict[str, Any]:
        losses = distiller.update(batch)
        if average is not None:
            average.update()
        return losses

    def step(batch: Any) -> dict[str, Any]:
        losses = strategy.run(update, args=(batch,))
        return {
            name: strategy.reduce("SUM" if is_count(name) else "MEAN", value, axis=None)
            for name, value in losses.items()
        }

    compiled: Callable[[Any], dict[str, Any]] = tf.function(
        step, reduce_retracing=True, autograph=False, jit_compile=whole or None
    )
    return compiled


def _local_labels(strategy: tf.distribute.Strategy, batch: dict[str, Any]) -> tuple[int, list[int]]:
    """This worker's samples, as many as any other's, and where each has one label, these labels."""
    parts = [part.numpy() for part in strategy.experimental_local_results(batch["label"])]
    return sum(map(len, parts)), [int(label) for part in parts if part.ndim == 1 for label in part]


def _distribute(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Any:
    """An iterable of what each device of this worker gets of each batch.

    On one CPU these are the batches themselves. TensorFlow's iterator over devices would start threads and
    trace functions anew for each epoch, to copy to where the batches are already.

    Args:
        strategy: of the training.
        batches: dataset of whole batches; with several workers, of this worker's equal share of them, as
            `training_batches` gives. TensorFlow's own sharding would either decode all on every worker or
            deal out files, which are other batches than one worker's.
    """
    devices = strategy.extended.worker_devices
    if count_workers(strategy) == 1:
        alone = [tf.DeviceSpec.from_string(device).device_type for device in devices] == ["CPU"]
        return batches if alone else strategy.experimental_distribute_dataset(batches)
    # All workers have equally many, whole batches. Asking the others for each whether they have another would
    # be a collective in the thread that reads ahead, out of order with those of the step.
    strategy.extended.experimental_enable_get_next_as_optional = False
    if len(devices) > 1:
        batches = batches.flat_map(lambda batch: _split(batch, len(devices)))
    return strategy.distribute_datasets_from_function(lambda context: batches)


def _split(batch: dict[str, tf.Tensor], devices: int) -> tf.data.Dataset:
    """One batch as a dataset of its equal parts, in order."""
    parts = {
        # (B, …) → (devices, B / devices, …)
        name: tf.reshape(values, (devices, values.shape[0] // devices, *values.shape[1:]))
        for name, values in batch.items()
    }
    return tf.data.Dataset.from_tensor_slices(parts)
