"""metrics.csv: a row an epoch, which always ends where the checkpoint does."""

import csv
import io
from pathlib import Path
from typing import Any

import keras

from kdant_tf.metrics_csv import METRICS, VALIDATION_METRICS
from tf_records.files import write_text_atomically


class MetricsFile(keras.callbacks.Callback):
    """Writes METRICS of every epoch, and what validation adds, but nothing that depends on the clock.

    Args:
        path: of the file; earlier rows there are replaced by those of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        names = (*METRICS, *(name for name in VALIDATION_METRICS if name in logs))
        self.rows = [*self.rows[:epoch], {"epoch": epoch + 1, **{name: logs[name] for name in names}}]
        self._write()

    def get_state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        self._write()

    def _write(self) -> None:
        names = dict.fromkeys(("epoch", *METRICS)) | dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, tuple(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text_atomically(self.path, text.getvalue())
