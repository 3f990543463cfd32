"""What a training says at its end."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from kdant_tf.metrics_csv import best_epoch, read_metrics
from kdant_tf.runs import METRICS_NAME, Run
from kdant_tf.training.workers import is_chief, worker_number


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training prints.

    `clips_per_second` is of the last epoch, `left_out` names damaged shards, `best_epoch` is the one whose
    network was kept; None where nothing was validated. Where several workers trained, `worker` is this one's
    number; 0, the chief, wrote the run.
    """

    run: Path
    epochs: int
    final_loss: float
    best_epoch: int | None
    validation_accuracy: float | None
    clips_per_second: float
    left_out: tuple[str, ...]
    worker: int = 0

    def to_dict(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        del fields["worker"]  # of which only the chief's result is shown
        return {**fields, "run": str(self.run), "left_out": list(self.left_out)}


def describe_result(run: Run, strategy: tf.distribute.Strategy, logs: dict[str, float]) -> TrainResult:
    """The result of `run`, whose last epoch had these logs."""
    out = run.folder
    rows = read_metrics(out / METRICS_NAME) if is_chief(strategy) else []
    best = best_epoch(rows)
    return TrainResult(
        run=out,
        epochs=len(rows),
        final_loss=rows[-1]["loss"] if rows else logs.get("loss", math.nan),
        best_epoch=best,
        validation_accuracy=None if best is None else rows[best - 1]["validation_accuracy"],
        clips_per_second=logs.get("clips_per_second", 0.0),
        left_out=run.left_out,
        worker=worker_number(strategy),
    )
