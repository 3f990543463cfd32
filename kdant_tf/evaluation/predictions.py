"""What an evaluation leaves in a run folder: the probabilities of each sample, and the results of each view.

Statistics, fusion and pictures read these and need no second pass. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from kdant_tf.evaluation.metrics import CurvePoint, Interval, in_top_k
from kdant_tf.runs import (
    CONFIG_NAME,
    EVALUATION_NAME,
    PREDICTIONS_NAME,
    Run,
    changing_results,
    read_evaluation,
    stale_results,
)
from tf_records.errors import RunError
from tf_records.files import atomic_path, parse_json_text
from tf_records.schema import FUTURE, OBSERVED
from tf_records.sources.jhmdb import source_videos

# What to do where a network answers with what is no number.
DIVERGED = "Its training diverged; train it again with a lower --learning-rate or with --clip-norm."
# Samples that an error names.
_NAMED = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Class probabilities of N samples, in record order.

    Args:
        probabilities: float64 `(N, classes)`, averaged over a sample's windows (§4.1).
        labels: int64 `(N,)`, indices of classes; of several labels a sample `(N, classes)`, 1 or 0.
        ids: of the samples, str `(N,)`.
        videos: files that the samples lie in, str `(N,)`; see `sources`.
        weights_sha256: of the network, see `kdant_tf.runs.weights_sha256`; empty where it is not known.
        records_sha256: of the records' manifest; empty where it is not known.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    videos: np.ndarray
    weights_sha256: str = ""
    records_sha256: str = ""

    @property
    def sources(self) -> np.ndarray:
        """The videos that these files were cut from, str `(N,)`: what intervals are bootstrapped over.

        Of most data sets they are the files; see `tf_records.sources.jhmdb.source_videos`.
        """
        return source_videos(self.videos)

    def correct(self, k: int = 1) -> np.ndarray:
        """Whether the label is among the `k` most probable classes: bool `(N,)`."""
        return in_top_k(self.probabilities, self.labels, k)

    @property
    def sha256(self) -> str:
        """Tells whether a result was computed from these."""
        digest = hashlib.sha256()
        for array in (self.probabilities, self.labels, self.ids, self.videos):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def check_finite(self, whose: str) -> None:
        """Refuses probabilities that are infinite or not a number.

        Args:
            whose: they are, in words, to begin the sentence with.

        Raises:
            RunError: names how many samples have such ones, and the first of them.
        """
        finite = np.isfinite(self.probabilities).all(axis=1)
        if not finite.all():
            first = ", ".join(self.ids[~finite][:_NAMED])
            more = " …" if np.sum(~finite) > _NAMED else ""
            raise RunError(
                f"{whose} gives outputs that are not finite for {np.sum(~finite)} of {len(finite)} samples: "
                f"{first}{more}. {DIVERGED}"
            )


_ARRAYS = ("probabilities", "labels", "ids", "videos")
_DIGESTS = ("weights_sha256", "records_sha256")


def save_predictions(
    path: Path, name: str, predictions: Predictions, confusion: np.ndarray | None = None
) -> None:
    """Adds predictions to an .npz file, as arrays `NAME/probabilities` and so on.

    Args:
        path: the file; what it holds under other names stays.
        name: to save them under.
        predictions: as an evaluation made them.
        confusion: kept as `NAME/confusion`, where the results list its counts alone.

    Raises:
        RunError: the file cannot be read.
    """
    with changing_results(path.parent):
        arrays = _read(path) if path.is_file() else {}
        arrays |= {f"{name}/{field}": np.asarray(getattr(predictions, field)) for field in _ARRAYS + _DIGESTS}
        if confusion is not None:
            arrays[f"{name}/confusion"] = confusion
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            _write(file, arrays)


def _write(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """As `np.savez`, and compresses all but probabilities, of which hardly less could be made."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_STORED if array.dtype.kind == "f" else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_predictions(path: Path, name: str) -> Predictions | None:
    """What was saved under `name`, or None where nothing was.

    Raises:
        RunError: the file cannot be read, or holds probabilities that are not finite.
    """
    arrays = _read(path) if path.is_file() else {}
    if any(f"{name}/{field}" not in arrays for field in _ARRAYS):
        return None
    fields: dict[str, Any] = {field: arrays[f"{name}/{field}"] for field in _ARRAYS}
    fields |= {field: str(arrays.get(f"{name}/{field}", "")) for field in _DIGESTS}
    predictions = Predictions(**fields)
    predictions.check_finite(f"The network of {path.parent}")
    return predictions


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """A run on a segment that it was evaluated on.

    Args:
        run: finished.
        name: of the run, as a page or card shows it.
        view: segment that it saw, as evaluation.json names it: "observed", "future", "observed, fused" …
        result: what evaluation.json has of that.
        predictions: kept of it; None of fused streams, and of runs evaluated before these were kept.
    """

    run: Run
    name: str
    view: str
    result: dict[str, Any]
    predictions: Predictions | None

    @property
    def title(self) -> str:
        """Such as "student, observed clip", or "student, observed clip, verb"."""
        segment, _, rest = self.view.partition(", ")
        return (
            f"{self.name}, {segment} clip, {rest}"
            if "head" in self.result
            else f"{self.name}, {self.view} clip"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """That the result is of: the run's, or those of the head."""
        return tuple(self.result["classes"]) if "head" in self.result else self.run.classes

    @property
    def several(self) -> bool:
        """Whether a sample has several labels: there is mean average precision in place of top-1."""
        return "top1" not in self.result


def read_evaluated(run: Run, name: str) -> list[EvaluatedRun]:
    """One for each segment that the run's network was evaluated on, the observed one first.

    Results of an earlier network are left out, see `describe_stale`.

    Raises:
        RunError: evaluation.json or predictions.npz cannot be read.
    """
    found, stale = [], stale_results(run.folder)
    for view, result in read_evaluation(run.folder).items():
        if view in stale or view.split(",")[0] not in (OBSERVED, FUTURE):
            continue
        try:
            kept = load_predictions(run.folder / PREDICTIONS_NAME, f"{view}/{result['split']}")
            kept = kept if kept is not None and _belong(result, kept) else None
            (
                float(result["mean_average_precision" if "top1" not in result else "top1"]),
                int(result["samples"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(run, error) from error
        classes = result["classes"] if "head" in result else run.classes
        if kept is not None and kept.probabilities.shape[1] != len(classes):
            raise RunError(
                f"{run.folder / PREDICTIONS_NAME} is of {kept.probabilities.shape[1]} classes, the run knows "
                f"{len(classes)}. Delete it and evaluate again."
            )
        found.append(EvaluatedRun(run=run, name=name, view=view, result=result, predictions=kept))
    return sorted(found, key=lambda each: (not each.view.startswith(OBSERVED), each.view))


def _belong(result: Mapping[str, Any], kept: Predictions) -> bool:
    """Whether a result was computed from these predictions; a kill may have come between the two files."""
    if "predictions_sha256" in result:
        return bool(result["predictions_sha256"] == kept.sha256)
    # Older versions noted where both come from.
    known = {name: getattr(kept, name) for name in _DIGESTS if getattr(kept, name)}
    return all(result.get(name, digest) == digest for name, digest in known.items())


def read_curves(run: Run, name: str) -> dict[str, list[CurvePoint]]:
    """The curves of top-1 accuracy that `kdant evaluate --observe`, `--tau` or `--streaming` kept.

    Args:
        name: "share", "tau" or "latency".

    Returns:
        `result_name` → the curve.

    Raises:
        RunError: evaluation.json cannot be read.
    """
    ends = ("value", "low", "high")
    try:
        stale = stale_results(run.folder)
        return {
            each: [
                CurvePoint(x=point[name], top1=Interval(**{end: point[end] for end in ends}))
                for point in result["top1"]
            ]
            for each, result in read_evaluation(run.folder).items()
            if each.partition(",")[0] == name and "mean_average_precision" not in result and each not in stale
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(run, error) from error


def describe_stale(run: Run) -> str | None:
    """In a sentence, which results of the run are of an earlier network; None where all are of this one."""
    stale = stale_results(run.folder)
    if not stale:
        return None
    return (
        f"Run {run.folder} has another network than when it was evaluated ({', '.join(stale)}). Evaluate it "
        f"again: {evaluate_command(run.folder)}."
    )


def describe_differences(evaluated: EvaluatedRun) -> str | None:
    """In what network and records differ from the training's, where `--insist` was given; None where not."""
    differences = evaluated.result.get("differences")
    if not differences:
        return None
    return f"not evaluated as it was trained: {'; '.join(differences)}"


def evaluate_command(folder: Path, records: str = "…") -> str:
    """What to type where a run was not evaluated."""
    given = records if records == "…" else shlex.quote(records)
    return f"kdant evaluate {shlex.quote(str(folder))} --records {given}"


def _unreadable(run: Run, error: Exception) -> RunError:
    return RunError(
        f"{run.folder / EVALUATION_NAME} cannot be read: {error}. Delete it and evaluate again: "
        f"{evaluate_command(run.folder)}."
    )


def read_config(run: Run) -> dict[str, Any]:
    """All of config.json, which `load_run` has read before."""
    return dict(parse_json_text((run.folder / CONFIG_NAME).read_text(encoding="utf-8")))


def flatten_settings(
    fields: Mapping[str, Any], *, leave_out: Sequence[str] = (), prefix: str = ""
) -> dict[str, str]:
    """Nested JSON as one level of text: "execution: xla" → "auto"; TrainConfig's fields go by themselves."""
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if name in leave_out:
            continue
        if isinstance(value, Mapping):
            inner = "" if name == "config" else f"{prefix}{name}: "
            flat |= flatten_settings(value, prefix=inner)
        else:
            flat[f"{prefix}{name}"] = _describe(value)
    return flat


def _describe(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_describe, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
