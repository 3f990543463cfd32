"""Checkpoints of a run and its metrics.csv, which always ends where the checkpoint does."""

import csv
import io
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.metrics_csv import METRICS, VALIDATION_METRICS, read_metrics
from kdant_tf.runs import CHECKPOINTS_NAME, METRICS_NAME
from kdant_tf.training.distiller import Distiller
from tf_records.files import write_text_atomically


class RunCheckpoints(keras.callbacks.Callback):
    """Saves network, optimizer and epoch after every epoch, keeps the last two, and restores.

    Args:
        folder: of the run.
        network: the whole network that is trained, or has a part that is.
        distiller: whose optimizer and projection are saved.
    """

    def __init__(self, folder: Path, network: keras.Model, distiller: Distiller) -> None:
        super().__init__()
        self.metrics_path = folder / METRICS_NAME
        self.finished_epochs = tf.Variable(0, dtype=tf.int64, trainable=False)
        # TensorFlow's checkpoints do not see the state of Keras' dropout seeds by themselves.
        variables = network.variables
        seeds = [variable.value for variable in variables if variable.path.endswith("seed_generator_state")]
        checkpoint = tf.train.Checkpoint(
            network=network,
            optimizer=distiller.optimizer,
            seeds=seeds,
            epochs=self.finished_epochs,
            **({} if distiller.projection is None else {"projection": distiller.projection}),
        )
        self.manager = tf.train.CheckpointManager(checkpoint, str(folder / CHECKPOINTS_NAME), max_to_keep=2)

    def restore(self) -> int:
        """Goes back to the latest checkpoint, if any; returns the number of finished epochs."""
        if self.manager.latest_checkpoint is not None:
            self.manager.checkpoint.restore(self.manager.latest_checkpoint).assert_consumed()
        epochs = int(self.finished_epochs.numpy())
        self._write_metrics(read_metrics(self.metrics_path)[:epochs])
        return epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        columns = (*METRICS, *(name for name in VALIDATION_METRICS if name in (logs or {})))
        row = {"epoch": epoch + 1, **{name: (logs or {})[name] for name in columns}}
        self._write_metrics([*read_metrics(self.metrics_path)[:epoch], row])
        self.finished_epochs.assign(epoch + 1)
        self.manager.save(checkpoint_number=epoch + 1)

    def _write_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        names = rows[0] if rows else ("epoch", *METRICS)
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomically(self.metrics_path, text.getvalue())


def latest_checkpoint(folder: Path) -> str | None:
    """Prefix of the last checkpoint in a run folder, if any."""
    return tf.train.latest_checkpoint(str(folder / CHECKPOINTS_NAME))
