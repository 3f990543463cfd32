"""Networks as a page shows them: a run on a segment that it was evaluated on. No TensorFlow here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from kdant_tf.evaluation.predictions import Predictions, load_predictions
from kdant_tf.runs import EVALUATION_NAME, PREDICTIONS_NAME, Run
from tf_records.errors import RunError
from tf_records.schema import FUTURE, OBSERVED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A run on a segment.

    Args:
        run: finished.
        name: of the run, on the page.
        view: segment that it saw, as evaluation.json names it: "observed", "future", "observed, fused" …
        result: what evaluation.json says of that.
        predictions: kept of it; None of fused streams, and of runs evaluated before these were kept.
    """

    run: Run
    name: str
    view: str
    result: dict[str, Any]
    predictions: Predictions | None

    @property
    def title(self) -> str:
        """Such as "student, observed clip"."""
        return f"{self.name}, {self.view} clip"


def read_evaluated(run: Run, name: str) -> list[Evaluated]:
    """One for each segment that the run was evaluated on; what is seen first comes first.

    Raises:
        RunError: evaluation.json or predictions.npz cannot be read.
    """
    found = []
    for view, result in read_results(run).items():
        if view.split(",")[0] not in (OBSERVED, FUTURE):
            continue
        try:
            kept = load_predictions(run.folder / PREDICTIONS_NAME, f"{view}/{result['split']}")
            float(result["top1"]), int(result["samples"])
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(run, error) from error
        if kept is not None and kept.probabilities.shape[1] != len(run.classes):
            raise RunError(
                f"{run.folder / PREDICTIONS_NAME} is of {kept.probabilities.shape[1]} classes, the run knows "
                f"{len(run.classes)}. Delete it and evaluate again."
            )
        found.append(Evaluated(run=run, name=name, view=view, result=result, predictions=kept))
    return sorted(found, key=lambda each: (not each.view.startswith(OBSERVED), each.view))


def read_results(run: Run) -> dict[str, Any]:
    """What evaluation.json says, by segment or curve; empty where the run was not evaluated.

    Raises:
        RunError: it cannot be read.
    """
    path = run.folder / EVALUATION_NAME
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(run, error) from error


def read_config(run: Run) -> dict[str, Any]:
    """All of config.json, which `load_run` has read before."""
    return dict(json.loads((run.folder / "config.json").read_text(encoding="utf-8")))


def describe_advice(folder: Path, records: str = "…") -> str:
    """What to type where a run was not evaluated."""
    return f"kdant evaluate {folder} --records {records}"


def _unreadable(run: Run, error: Exception) -> RunError:
    return RunError(
        f"{run.folder / EVALUATION_NAME} cannot be read: {error}. Delete it and evaluate again: "
        f"{describe_advice(run.folder)}."
    )
