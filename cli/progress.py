"""Progress of a training on stderr: a rich bar on a terminal, a line an epoch when piped."""

import time
from typing import Any

import keras
from rich.console import Console

from .bars import clock, make_progress


class TrainingProgress(keras.callbacks.Callback):
    """Loss, accuracy, clips a second, share of time waiting for data, time left.

    Use as a context manager, so that an error gives the terminal back.

    Args:
        epochs: of the whole training.
        name: shown before the numbers.
    """

    def __init__(self, epochs: int, name: str = "training") -> None:
        super().__init__()
        self.epochs = epochs
        self.name = name
        self.console = Console(stderr=True)
        self.progress = make_progress(self.console)

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.began_s = time.monotonic()
        self.first_epoch: int | None = None
        self.steps = 0
        self.task = self.progress.add_task(self.name, total=self.epochs, note="")
        if self.console.is_terminal:
            self.progress.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.first_epoch is None:
            self.first_epoch = epoch
            self.progress.update(self.task, completed=epoch, note="first step, which compiles …")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.steps += 1
        done = (self.first_epoch or 0) + self.steps / self.params["steps"]
        self.progress.update(self.task, completed=done, note=_describe(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not self.console.is_terminal:
            done = epoch + 1 - (self.first_epoch or 0)
            left_s = (time.monotonic() - self.began_s) / done * (self.epochs - epoch - 1)
            numbers = f"{_describe(logs or {})}, {clock(left_s)} left"
            self.console.out(f"{self.name}: epoch {epoch + 1}/{self.epochs}, {numbers}", highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.__exit__()


def _describe(logs: dict[str, float]) -> str:
    features = f" (features {logs['feature_loss']:.4f})" if logs.get("feature_loss") else ""
    return (
        f"loss {logs['loss']:.3f}{features}, accuracy {logs['accuracy']:.0%}, "
        f"{logs['clips_per_second']:.1f} clips/s, {logs['data_wait_share']:.0%} waiting for data"
    )
