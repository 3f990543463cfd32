"""Progress of a training on stderr: bars and numbers on a terminal, a line an epoch when piped."""

import time
from collections.abc import Iterable
from typing import Self

import keras
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from .output import clock, describe_memory, percent

# Numbers that change faster cannot be read.
_REDRAWS_PER_SECOND = 4
_MEMORY_EVERY_S = 2.0
_CLOSING = "validating, saving …"


class TrainingProgress(keras.callbacks.Callback):
    """Epochs, steps, losses, accuracy, learning rate, speed, waiting for data, memory, time left.

    Use as a context manager, so that an error gives the terminal back.

    Args:
        epochs: of the whole training.
        name: shown before the numbers.
        console: to draw on; None is stderr.
    """

    def __init__(self, epochs: int, name: str = "training", console: Console | None = None) -> None:
        super().__init__()
        self.epochs = epochs
        self.name = name
        self.console = Console(stderr=True) if console is None else console
        self.bars = _Bars(self.console)
        self.clock = _TimeLeft()
        self.rate = 0.0
        self.memory = ""
        self.memory_read_s = float("-inf")
        self.validated = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self.bars.stop()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.epoch_bar = self.bars.add_task("", total=self.epochs, note="")
        self.step_bar = self.bars.add_task("", total=self._steps, note="")
        if self.console.is_terminal:
            self.bars.show(self.name, ("the first step, which compiles …",))
            self.bars.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch
        self.rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._move(epoch * self._steps, step=0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        done = self.epoch * self._steps + batch + 1
        self.clock.step_ended(done)
        self._move(done, step=batch + 1)
        self.bars.show(self.name, self._describe({"learning_rate": self.rate, **(logs or {})}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {"learning_rate": self.rate, **(logs or {})}
        self.validated = _describe_validation(logs)
        if not self.console.is_terminal:
            numbers = ", ".join(part for part in (*self._describe(logs), self._left()) if part)
            self.console.out(f"{self.name}: epoch {epoch + 1}/{self.epochs}, {numbers}", highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.__exit__()

    def _move(self, done: int, *, step: int) -> None:
        names = _count("epoch", self.epoch + 1, self.epochs), _count("step", step, self._steps)
        width = max(map(len, names))
        epoch, step_of = (name.ljust(width) for name in names)
        self.bars.update(self.epoch_bar, description=epoch, completed=done / self._steps, note=self._left())
        closing = _CLOSING if step == self._steps else ""
        self.bars.update(self.step_bar, description=step_of, completed=step, note=closing)

    @property
    def _steps(self) -> int:
        """Of an epoch."""
        return max(1, int(self.params["steps"]))

    def _left(self) -> str:
        left_s = self.clock.left_s(self.epochs * self._steps)
        return "" if left_s is None else f"{clock(left_s)} left"

    def _describe(self, logs: dict[str, float]) -> tuple[str, str, str, str]:
        """Lines: what is learned, what the feature loss sees, how it runs, what validation said last."""
        now = time.monotonic()
        if now - self.memory_read_s >= _MEMORY_EVERY_S:
            self.memory, self.memory_read_s = describe_memory(), now
        waiting = f"{100 * logs['data_wait_share']:.0f} % waiting for data"
        gradient = f", gradient norm {logs['gradient_norm']:.3g}" if "gradient_norm" in logs else ""
        return (
            _describe_learning(logs),
            _describe_health(logs),
            f"{logs['clips_per_second']:.1f} clips/s, {waiting}, {self.memory}{gradient}",
            self.validated,
        )


class _TimeLeft:
    """From the steps done in this process, the first one, which compiles, left out."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] | None = None

    def step_ended(self, done: int) -> None:
        """`done` counts all steps of the training, those before a resume included."""
        self.last = (done, time.monotonic())
        if self.first is None:
            self.first = self.last

    def left_s(self, total: int) -> float | None:
        if self.first is None or self.last is None or self.last[0] == self.first[0]:
            return None
        step_s = (time.monotonic() - self.first[1]) / (self.last[0] - self.first[0])
        return step_s * (total - self.last[0])


class _Bars(Progress):
    """Two bars as wide as the terminal, and lines below them that are cut rather than wrapped."""

    def __init__(self, console: Console) -> None:
        self.lines: tuple[str, ...] = ("",)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}", table_column=Column(width=len(_CLOSING), no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=_REDRAWS_PER_SECOND,
        )

    def show(self, title: str, lines: Iterable[str]) -> None:
        self.lines = (title, *(line for line in lines if line))

    def get_renderables(self) -> Iterable[RenderableType]:
        title, *lines = (Text(line, no_wrap=True, overflow="ellipsis") for line in self.lines)
        return (title, self.make_tasks_table(self.tasks), *lines)


def _count(what: str, number: int, total: int) -> str:
    """ "epoch  3/40": as wide for every number."""
    return f"{what} {number:{len(str(total))}}/{total}"


def _describe_learning(logs: dict[str, float]) -> str:
    features = f", Ld {logs['feature_loss']:.4f}" if logs.get("feature_loss") else ""
    parts = f" (Lc {logs['classification_loss']:.3f}{features})" if "classification_loss" in logs else ""
    rate = f"learning rate {logs['learning_rate']:.3g}"
    return f"loss {logs['loss']:.3f}{parts}, top-1 {percent(logs['accuracy'])}, {rate}"


def _describe_health(logs: dict[str, float]) -> str:
    """Of the feature loss, see `kdant_tf.losses.pooling_health`."""
    names = {"pooling_entropy": "pooling entropy", "map_variation": "map variation"}
    return ", ".join(f"{words} {logs[name]:.3f}" for name, words in names.items() if name in logs)


def _describe_validation(logs: dict[str, float]) -> str:
    if "validation_accuracy" not in logs:
        return ""
    what = "mAP" if "validation_mean_average_precision" in logs else "top-1"
    return f"validation {what} {percent(logs['validation_accuracy'])}, loss {logs['validation_loss']:.3f}"
