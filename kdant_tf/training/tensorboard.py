"""What TensorBoard shows of a training while it runs: scalars, and now and then heat maps."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

_EVENT_FILES = "events.out.tfevents.*"


class TensorBoardEvents(keras.callbacks.Callback):
    """Writes each of an epoch's logs under its name; the step is the number of finished epochs.

    A resumed training first drops what was written of epochs that it runs again, so that no step stands
    twice.

    Args:
        folder: of the event files.
        draw_heat_maps: gives a picture uint8 `(height, width, 3)`, or None for no pictures.
        every: epochs between two of them; the last epoch has one as well.
    """

    def __init__(
        self, folder: Path, draw_heat_maps: Callable[[], np.ndarray] | None = None, every: int = 1
    ) -> None:
        super().__init__()
        self.folder = folder
        self.draw_heat_maps = draw_heat_maps
        self.every = every
        self.writer: tf.summary.SummaryWriter | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.writer is None:
            keep_events(self.folder, epoch)
            self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert self.writer is not None
        done = epoch + 1
        with self.writer.as_default(step=done):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)
            if self.draw_heat_maps is not None and (done % self.every == 0 or done == self.params["epochs"]):
                tf.summary.image("heat_maps", self.draw_heat_maps()[None])
        self.writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self.writer is not None:
            self.writer.close()


def keep_events(folder: Path, last_step: int) -> None:
    """Puts one file with the events up to `last_step` in the place of a folder's event files."""
    paths = sorted(folder.glob(_EVENT_FILES))
    if not paths:
        return
    kept = [event for path in paths for event in _read_events(path) if event.step <= last_step]
    temporary = folder / f".tmp-{paths[0].name}"
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for event in kept:
            writer.write(event.SerializeToString())
    temporary.rename(paths[0])
    for path in paths[1:]:
        path.unlink()


def _read_events(path: Path) -> list[tf.compat.v1.Event]:
    """Events of a file, to where it was cut short if it was."""
    events = []
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(tf.compat.v1.Event.FromString(serialized))
    except tf.errors.DataLossError:
        pass
    return events
