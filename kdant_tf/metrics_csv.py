"""A run's metrics.csv, one row an epoch, and what follows from it. No TensorFlow here."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_records.errors import RunError

METRICS = ("learning_rate", "loss", "classification_loss", "feature_loss", "accuracy")
# Columns more, where an epoch is validated.
VALIDATION_METRICS = ("validation_loss", "validation_accuracy", "validation_mean_class_accuracy")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, one an epoch; empty where there is no file.

    Raises:
        RunError: the file cannot be read.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            if missing := {"epoch", *METRICS} - set(rows.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)}")
            return [
                {name: int(value) if name == "epoch" else float(value) for name, value in row.items()}
                for row in rows
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}. Train the run again with --overwrite.") from error


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int | None:
    """The epoch, counted from 1, of the highest validation accuracy; ties: lower loss, then the earlier.

    None where nothing was validated.
    """
    validated = [row for row in rows if "validation_accuracy" in row]
    if not validated:
        return None
    best = min(validated, key=lambda row: (-row["validation_accuracy"], row["validation_loss"], row["epoch"]))
    return int(best["epoch"])
