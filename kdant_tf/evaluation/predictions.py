"""What a network said of each sample, kept so that statistics, fusion and pictures need no second pass."""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.evaluation.metrics import in_top_k
from kdant_tf.runs import EVALUATION_NAME, PREDICTIONS_NAME, Run
from tf_records.errors import RunError
from tf_records.files import atomic_path
from tf_records.schema import FUTURE, OBSERVED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Of N samples, in record order.

    Args:
        probabilities: float64 `(N, classes)`, averaged over a sample's windows (§4.1).
        labels: int64 `(N,)`.
        ids: of the samples, str `(N,)`.
        videos: that they lie in, str `(N,)`.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    videos: np.ndarray

    def right(self, k: int = 1) -> np.ndarray:
        """Whether the label is among the `k` most probable classes: bool `(N,)`."""
        return in_top_k(self.probabilities, self.labels, k)


_FIELDS = tuple(field.name for field in dataclasses.fields(Predictions))


def save_predictions(path: Path, name: str, predictions: Predictions) -> None:
    """Adds predictions to an .npz file, as arrays `NAME/probabilities` and so on.

    Raises:
        RunError: the file cannot be read.
    """
    arrays = _read(path) if path.is_file() else {}
    arrays |= {f"{name}/{field}": getattr(predictions, field) for field in _FIELDS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_predictions(path: Path, name: str) -> Predictions | None:
    """What was saved under `name`, or None where nothing was.

    Raises:
        RunError: the file cannot be read.
    """
    arrays = _read(path) if path.is_file() else {}
    if any(f"{name}/{field}" not in arrays for field in _FIELDS):
        return None
    return Predictions(**{field: arrays[f"{name}/{field}"] for field in _FIELDS})


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}. Delete it and evaluate again.") from error


def fuse(streams: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """Adds the streams' logits, weighted, and normalises (Table 1, column "Both").

    Logits are logarithms of probabilities but for a constant of the sample, which normalising removes.
    So a weight of 0 leaves a stream out, and of one window a sample the networks' own logits are added.

    Args:
        streams: of the same samples, at least one.
        weights: float >= 0 of each, not all 0.

    Raises:
        RunError: other samples, classes or labels (says which).
    """
    first = streams[0]
    for other in streams[1:]:
        _check_same_samples(first, other)
    smallest = np.finfo(np.float64).tiny
    logits = sum(
        weight * np.log(np.maximum(stream.probabilities, smallest))
        for weight, stream in zip(weights, streams, strict=True)
    )
    exponentials = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return dataclasses.replace(first, probabilities=exponentials / exponentials.sum(axis=1, keepdims=True))


def _check_same_samples(first: Predictions, other: Predictions) -> None:
    for what, own, given in (
        ("number of classes", first.probabilities.shape[1], other.probabilities.shape[1]),
        ("number of samples", len(first.ids), len(other.ids)),
    ):
        if own != given:
            raise RunError(
                f"Two networks can only be compared on the same samples; their {what} differs, {own} and "
                f"{given}. Evaluate both on the same records."
            )
    differing = np.flatnonzero((first.ids != other.ids) | (first.labels != other.labels))
    if len(differing):
        number = int(differing[0])
        own, given = str(first.ids[number]), str(other.ids[number])
        raise RunError(
            f"Two networks can only be compared on the same samples; sample {number} is "
            f"{own!r} for one and {given!r} for the other, or has another label. "
            f"Evaluate both on the same records."
        )


# Networks as a page shows them: a run on a segment that it was evaluated on. No TensorFlow here.


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
