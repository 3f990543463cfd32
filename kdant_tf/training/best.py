"""The network of the epoch that validation finds best, kept while training goes on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras

from kdant_tf.metrics_csv import best_epoch, read_metrics
from kdant_tf.runs import BEST_NAME, METRICS_NAME


class BestNetwork(keras.callbacks.Callback):
    """Keeps the network of the best epoch so far, and of the best before this one.

    Two, since a training may be resumed from the checkpoint before. Which they are follows from metrics.csv
    and so needs no state of its own. Goes after the validation.

    Args:
        folder: of the run.
        save: writes the network's files into a folder.
    """

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        super().__init__()
        self.folder = folder
        self.save = save

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.rows = read_metrics(self.folder / METRICS_NAME)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        before = best_epoch(self.rows[:epoch])
        self.rows = [*self.rows[:epoch], {**(logs or {}), "epoch": epoch + 1}]
        now = best_epoch(self.rows)
        if now == epoch + 1:
            self._write(_place(self.folder, now))
        kept = {_place(self.folder, best) for best in (before, now) if best is not None}
        for place in (self.folder / BEST_NAME).iterdir():
            if place not in kept:
                shutil.rmtree(place)

    def _write(self, place: Path) -> None:
        """The folder appears as a whole."""
        temporary = place.with_name(f".tmp-{os.getpid()}-{place.name}")
        temporary.mkdir(parents=True)
        self.save(temporary)
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)


def best_network(folder: Path) -> Path | None:
    """The folder in a run folder that holds the best epoch's network, if that is known and there."""
    best = best_epoch(read_metrics(folder / METRICS_NAME))
    return None if best is None or not _place(folder, best).is_dir() else _place(folder, best)


def _place(folder: Path, epoch: int) -> Path:
    return folder / BEST_NAME / f"epoch-{epoch:04d}"
