"""Says once in a training that its feature loss no longer sees places."""

from collections.abc import Callable
from typing import Any

import keras

from kdant_tf.losses.pooling_health import EPOCHS_IN_A_ROW, describe_trouble
from kdant_tf.runs import HEALTH_METRICS


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
