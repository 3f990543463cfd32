"""What a network said of each sample, kept so that statistics, fusion and pictures need no second pass."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.evaluation.metrics import in_top_k
from tf_records.errors import RunError
from tf_records.files import atomic_path


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
