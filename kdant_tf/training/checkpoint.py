"""When a training is saved, what of it, and how it goes on from there."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.runs import CHECKPOINTS_NAME
from kdant_tf.training.batch_norm import agree_on_statistics
from kdant_tf.training.checkpoint_folder import (
    SavedCheckpoint,
    checkpoint_names,
    remove_checkpoints,
    remove_half_written,
    write_checkpoint,
)
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.position import Position
from kdant_tf.training.stop_signals import StoppedError
from kdant_tf.training.workers import any_worker, is_chief
from tf_records.errors import RunError

LAST_KEPT = 2
_TENSORS = "tensors"
# What Keras' own callbacks remember from epoch to epoch: EarlyStopping, ReduceLROnPlateau, ModelCheckpoint.
_REMEMBERED = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")


class RunCheckpoints(keras.callbacks.Callback):
    """Saves a training after every epoch, every few minutes and when it is asked to stop; restores it.

    The last of all callbacks, so that it saves what the others have become. A callback with `get_state`
    (what JSON can hold) and `set_state` is saved and restored; of Keras' own, their patience is.

    Args:
        folder: of the run.
        network: the whole network that is trained, or has a part that is.
        distiller: whose optimizer and projection are saved.
        position: that the loop moves on.
        others: callbacks whose state is kept.
        minutes: save within an epoch once so many have passed since the last time; 0 never does.
        stop_asked: says who asks for an end, or None.

    With several workers each has one of these, which all save and stop at the same step; the chief's writes.
    """

    def __init__(
        self,
        folder: Path,
        network: keras.Model,
        distiller: Distiller,
        position: Position,
        *,
        others: Sequence[keras.callbacks.Callback] = (),
        minutes: float = 0.0,
        stop_asked: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__()
        self.folder = folder / CHECKPOINTS_NAME
        self.position = position
        self.others = _by_name(others)
        self.minutes = minutes
        self.stop_asked = stop_asked
        self.network = network
        self.strategy = distiller.distribute_strategy
        self._patience: list[tuple[keras.callbacks.Callback, dict[str, Any]]] = []
        # TensorFlow's checkpoints do not see the state of Keras' dropout seeds by themselves.
        variables = network.variables
        seeds = [variable.value for variable in variables if variable.path.endswith("seed_generator_state")]
        self._tensors = tf.train.Checkpoint(
            network=network,
            optimizer=distiller.optimizer,
            seeds=seeds,
            **({} if distiller.projection is None else {"projection": distiller.projection}),
        )

    def restore(self, saved: SavedCheckpoint) -> None:
        """Goes back to a checkpoint; Keras' callbacks do once the training begins, when they begin anew."""
        self._tensors.read(str(saved.path / _TENSORS)).assert_consumed()
        self.position.set_state(saved.state["position"])
        for name, callback in self.others.items():
            state = saved.state["callbacks"].get(name)
            if state is not None and hasattr(callback, "set_state"):
                callback.set_state(state)
            elif state is not None:
                self._patience.append((callback, state))
        if not is_chief(self.strategy):
            return
        names = checkpoint_names(self.folder)
        # Newer ones are damaged: they would be taken for those that this training makes.
        remove_checkpoints(self.folder, keep=set(names[: names.index(saved.path.name) + 1]))
        remove_half_written(self.folder.parent)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        for callback, state in self._patience:
            for name, value in state.items():
                setattr(callback, name, value)
        self._saved_s = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        due = self.minutes > 0 and time.monotonic() - self._saved_s >= 60 * self.minutes
        stop, due = any_worker(self.strategy, self.stop_asked() is not None, due)
        if stop or due:
            agree_on_statistics(self.network, self.strategy)
            self.save()
        if stop:
            raise self._stopped(f"step {batch + 1} of epoch {self.position.epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        stop, ended = any_worker(self.strategy, self.stop_asked() is not None, self.model.stop_training)
        self.position.stopped = self.model.stop_training = ended
        self.save()
        if stop and epoch + 1 < self.params["epochs"] and not ended:
            raise self._stopped(f"epoch {epoch + 1}")

    def save(self) -> None:
        """Writes a checkpoint of this moment, and removes those that are no longer kept."""
        self._saved_s = time.monotonic()
        if not is_chief(self.strategy):
            return
        state = {
            "position": self.position.get_state(),
            "callbacks": {name: _get_state(callback) for name, callback in self.others.items()},
        }
        write_checkpoint(self.folder, self.position.global_step, state, self._write_tensors)
        remove_checkpoints(self.folder, keep=set(checkpoint_names(self.folder)[-LAST_KEPT:]))

    def _write_tensors(self, folder: Path) -> None:
        try:
            self._tensors.write(str(folder / _TENSORS))
        except tf.errors.OpError as error:
            said = error.message.split("}} ")[-1].split(" [Op:")[0]
            raise RunError(
                f"A checkpoint cannot be written: {said}. Mend that and go on with --resume."
            ) from error

    def _stopped(self, after: str) -> StoppedError:
        asked_by = self.stop_asked()
        return StoppedError(
            f"Stopped by {'another worker' if asked_by is None else asked_by} after {after}; a checkpoint "
            f"holds all of it. Go on with the same command and --resume."
        )


def _by_name(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, keras.callbacks.Callback]:
    """Callbacks under their class's name, further ones of a class with a number."""
    named: dict[str, keras.callbacks.Callback] = {}
    for callback in callbacks:
        name, number = type(callback).__name__, 1
        while f"{name}-{number}" in named:
            number += 1
        named[f"{name}-{number}"] = callback
    return named


def _get_state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if hasattr(callback, "get_state"):
        return dict(callback.get_state())
    return {name: getattr(callback, name) for name in _REMEMBERED if hasattr(callback, name)}
