"""What a training warns of, once: a network at chance, a feature loss that no longer sees places."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from kdant_tf.losses.pooling_health import EPOCHS_IN_A_ROW, describe_trouble
from kdant_tf.runs import HEALTH_METRICS

# Standard errors above chance, exceeded by guessing in one epoch of 40, and never.
_MARGIN = 2.0
_CLEAR_MARGIN = 4.0
# Epochs in a row at chance: from the start, at least, and as a share of all; and after better ones.
_EPOCHS_FROM_START = 3
_SHARE_FROM_START = 0.1
_EPOCHS_AFTER_BETTER = 2


class ChanceWatch(keras.callbacks.Callback):
    """Reports, once, that the training accuracy stays at chance, or has fallen to it.

    A network that collapsed gives one answer to everything, at best the most frequent label: its share p of
    the labels is chance, which is 1 / classes only where all are as many. Of n labelled samples a network
    that guesses so gets n·p right, give or take sqrt(n·p·(1 − p)). An epoch is *at chance* where accuracy is
    at most p + 2·sqrt(p·(1 − p) / n), and *clearly above* where it is more than p + 4·sqrt(p·(1 − p) / n).

    - It *stays* at chance: no epoch was clearly above, and the last ones are at chance, 3 of them or a tenth
      of the training's epochs, whichever is more. Warm-up does not count, whose rate has yet to rise.
      A network from random weights may need its first epochs, so that fewer would often be wrong.
    - It has *fallen* to chance: an epoch was clearly above, and the last 2 are at chance.

    Training accuracy, not validation accuracy: it is measured in every training, on more samples, and a
    network that only fails on new videos is another matter. Epochs without a label are passed over.

    Args:
        report: called with the line.
        epochs: of the training.
        warmup_epochs: at its start.
    """

    def __init__(self, report: Callable[[str], None], *, epochs: int, warmup_epochs: float = 0.0) -> None:
        super().__init__()
        self.report = report
        self.warmup_epochs = warmup_epochs
        self.patience = max(_EPOCHS_FROM_START, math.ceil(_SHARE_FROM_START * epochs))
        self.in_a_row = 0
        self.was_above = False
        self.warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        if self.warned or not logs.get("labeled") or epoch < self.warmup_epochs:
            return
        accuracy, chance = logs["accuracy"], logs["chance"]
        error = math.sqrt(chance * (1 - chance) / logs["labeled"])
        self.was_above = self.was_above or accuracy > chance + _CLEAR_MARGIN * error
        self.in_a_row = self.in_a_row + 1 if accuracy <= chance + _MARGIN * error else 0
        if self.in_a_row >= (_EPOCHS_AFTER_BETTER if self.was_above else self.patience):
            self.warned = True
            verb = "has fallen to" if self.was_above else "stays at"
            self.report(
                f"Warning: epoch {epoch + 1}: training accuracy {verb} chance: {accuracy:.1%}, where naming "
                f"the most frequent label each time gives {chance:.1%}. Lower --learning-rate, give "
                f"--warmup-epochs or --clip-norm, or --freeze-batch-norm with --init."
            )

    def get_state(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "was_above": self.was_above, "warned": self.warned}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class PoolingWarning(keras.callbacks.Callback):
    """Reports what `kdant_tf.losses.pooling_health.describe_trouble` says, the first time that it does.

    Args:
        report: called with the line.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self.report = report
        self.epochs: list[dict[str, float]] = []
        self.warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        measured = {name: value for name, value in (logs or {}).items() if name in HEALTH_METRICS}
        self.epochs = [*self.epochs, measured][-EPOCHS_IN_A_ROW:]
        trouble = None if self.warned else describe_trouble(self.epochs)
        if trouble is not None:
            self.warned = True
            self.report(f"Warning: epoch {epoch + 1}: {trouble}")

    def get_state(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "warned": self.warned}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epochs, self.warned = state["epochs"], state["warned"]
