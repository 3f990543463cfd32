"""When a training is saved, what of it, how it goes on from there, and how it stops when it is asked to."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.runs import CHECKPOINTS_NAME
from kdant_tf.training.assembly import agree_on_statistics
from kdant_tf.training.distiller import Distiller
from kdant_tf.training.loop import Position
from kdant_tf.training.strategy import any_worker, is_chief
from kdant_tf.training.weight_average import WeightAverage
from tf_records.errors import RunError, StoppedError
from tf_records.files import fsync_path, hash_file, is_sealed, json_text, parse_json_text, seal

# The newest is what a training goes on from, the one before where that is damaged.
_KEPT = 2
_TENSORS = "tensors"
# What Keras' own callbacks remember from epoch to epoch: EarlyStopping, ReduceLROnPlateau, ModelCheckpoint.
_CALLBACK_STATE = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
# `checkpoints/step-00000120` holds files of tensors and `state.json`, which has their sha256s and, last, one
# of itself. A folder appears under its name in one go, when all of it has reached the disk.
_STATE_NAME = "state.json"
_NAME = re.compile(r"step-\d{8,}")
_TEMPORARY = ".tmp-"


class RunCheckpoints(keras.callbacks.Callback):
    """Saves a training after every epoch, every few minutes and when it is asked to stop; restores it.

    The last of all callbacks, so that it saves what the others have become. A callback with `get_state`
    (what JSON can hold) and `set_state` is saved and restored; of Keras' own, their patience is.

    Args:
        folder: of the run.
        network: the whole network that is trained, or has a part that is.
        distiller: whose optimizer and projection are saved.
        position: that the loop moves on.
        average: of the weights, saved beside them.
        others: callbacks whose state is kept.
        minutes: save within an epoch once so many have passed since the last time; 0 never does.
        stop_requested: gives what asked for an end, such as "SIGTERM", or None.

    With several workers each has one of these, which all save and stop at the same step; the chief's writes.
    """

    def __init__(
        self,
        folder: Path,
        network: keras.Model,
        distiller: Distiller,
        position: Position,
        *,
        average: WeightAverage | None = None,
        others: Sequence[keras.callbacks.Callback] = (),
        minutes: float = 0.0,
        stop_requested: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__()
        self.folder = folder / CHECKPOINTS_NAME
        self.position = position
        self.others = _by_name(others)
        self.minutes = minutes
        self.stop_requested = stop_requested
        self.network = network
        self.average = average
        self.strategy = distiller.distribute_strategy
        self._keras_states: list[tuple[keras.callbacks.Callback, dict[str, Any]]] = []
        # TensorFlow's checkpoints do not see the state of Keras' dropout seeds by themselves.
        variables = network.variables
        seeds = [variable.value for variable in variables if variable.path.endswith("seed_generator_state")]
        self._tensors = tf.train.Checkpoint(
            network=network,
            optimizer=distiller.optimizer,
            seeds=seeds,
            **({} if distiller.projection is None else {"projection": distiller.projection}),
            **({} if average is None else {"average": average.state}),
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
                self._keras_states.append((callback, state))
        if not is_chief(self.strategy):
            return
        names = checkpoint_names(self.folder)
        # Newer ones are damaged: they would be taken for those that this training makes.
        remove_checkpoints(self.folder, keep=set(names[: names.index(saved.path.name) + 1]))
        remove_half_written(self.folder.parent)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        for callback, state in self._keras_states:
            for name, value in state.items():
                setattr(callback, name, value)
        self._saved_s = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        due = self.minutes > 0 and time.monotonic() - self._saved_s >= 60 * self.minutes
        stop, due = any_worker(self.strategy, self.stop_requested() is not None, due)
        if stop or due:
            agree_on_statistics(self.network, self.strategy, self.average)
            self.save()
        if stop:
            raise self._stopped(f"step {batch + 1} of epoch {self.position.epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        stop, ended = any_worker(self.strategy, self.stop_requested() is not None, self.model.stop_training)
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
        remove_checkpoints(self.folder, keep=set(checkpoint_names(self.folder)[-_KEPT:]))

    def _write_tensors(self, folder: Path) -> None:
        try:
            self._tensors.write(str(folder / _TENSORS))
        except tf.errors.OpError as error:
            message = error.message.split("}} ")[-1].split(" [Op:")[0]
            raise RunError(
                f"A checkpoint cannot be written: {message}. Mend that and go on with --resume."
            ) from error

    def _stopped(self, after: str) -> StoppedError:
        by = self.stop_requested()
        return StoppedError(
            f"Stopped by {'another worker' if by is None else by} after {after}; a checkpoint "
            f"holds all of it. Go on with the same command and --resume."
        )


@dataclasses.dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint whose files are as they were written, and what its state.json says."""

    path: Path
    state: dict[str, Any]


def write_checkpoint(
    folder: Path, global_step: int, state: dict[str, Any], write_files: Callable[[Path], None]
) -> Path:
    """Writes one checkpoint, in the place of an earlier one of the same step; returns its path.

    Args:
        folder: of all checkpoints, made if need be.
        global_step: names it.
        state: what JSON can hold.
        write_files: writes the files of tensors into the folder it is given.
    """
    path = folder / checkpoint_name(global_step)
    temporary = folder / f"{_TEMPORARY}{os.getpid()}-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_files(temporary)
        files = {file.name: hash_file(file) for file in sorted(temporary.iterdir())}
        text = json_text({**state, "files": files}, indent=1) + "\n"
        (temporary / _STATE_NAME).write_text(seal(text), encoding="utf-8")
        for written in (*temporary.iterdir(), temporary):
            fsync_path(written)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        fsync_path(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def checkpoint_name(global_step: int) -> str:
    """Name of the checkpoint written after so many steps."""
    return f"step-{global_step:08d}"


def find_checkpoint(folder: Path, report: Callable[[str], None]) -> SavedCheckpoint | None:
    """The newest whole checkpoint in `folder`; None where there never was one.

    Args:
        folder: of all checkpoints, which need not be there.
        report: called with a line on newer ones that are not whole.

    Raises:
        RunError: there are checkpoints, but none that is whole or that this version can read.
    """
    faults = []
    for path in reversed(_checkpoints(folder)):
        try:
            saved = read_checkpoint(path)
        except RunError as error:
            faults.append(str(error))
            continue
        if faults:
            report(f"{' '.join(faults)} Taking {path.name}, the one before.")
        return saved
    if faults:
        raise RunError(f"{' '.join(faults)} There is no other; begin again with --overwrite.")
    if (folder / "checkpoint").is_file():
        raise RunError(
            f"{folder} holds checkpoints of an earlier version of kdant, which this one cannot go on from. "
            f"Finish the run with that version, or begin again with --overwrite."
        )
    return None


def read_checkpoint(path: Path) -> SavedCheckpoint:
    """Raises RunError, in one sentence, where anything is not as it was written."""
    try:
        content = (path / _STATE_NAME).read_bytes()
        if not is_sealed(content):
            raise RunError(f"Checkpoint {path} is damaged: {_STATE_NAME} is not as it was written.")
        state = parse_json_text(content)
        for name, sha256 in state["files"].items():
            if hash_file(path / name) != sha256:
                raise RunError(f"Checkpoint {path} is damaged: {name} is not as it was written.")
    except OSError as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise RunError(f"Checkpoint {path} is damaged: {missing}: {error.strerror}.") from error
    return SavedCheckpoint(path, state)


def remove_checkpoints(folder: Path, *, keep: set[str]) -> None:
    """Removes all checkpoints in `folder` but those named, and what killed trainings left half-written."""
    for path in _checkpoints(folder):
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
    remove_half_written(folder)


def remove_half_written(folder: Path) -> None:
    """Removes the temporary files and folders of trainings that were killed while they wrote them."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def checkpoint_names(folder: Path) -> list[str]:
    """Names of all checkpoints in `folder`, the oldest first."""
    return [path.name for path in _checkpoints(folder)]


def _checkpoints(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:]))


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
    return {name: getattr(callback, name) for name in _CALLBACK_STATE if hasattr(callback, name)}
