"""How a run is evaluated: which segment, which windows, what is computed from it and what is kept of it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.evaluation import metrics
from kdant_tf.evaluation.metrics import (
    Interval,
    accuracy_interval,
    mean_class_accuracy_interval,
)
from kdant_tf.evaluation.predictions import Predictions, fuse, save_predictions
from kdant_tf.models.i3d_stem import load_with_stem
from kdant_tf.models.inference import (
    DEFAULT,
    FLOAT32,
    TENSORFLOW,
    Engine,
    Inference,
    compile_inference,
    open_inference,
)
from kdant_tf.runs import (
    MODEL_NAME,
    PREDICTIONS_NAME,
    Run,
    load_run,
    manifest_sha256,
    record_evaluation,
    result_name,
    weights_sha256,
)
from tf_records.errors import NotKeptError, RunError
from tf_records.heads import Heads, are_times, describe_heads
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches
from tf_records.schema import FUTURE, OBSERVED

BATCH_SIZE = 16
# A sum of two times may round up.
_TIME_TOLERANCE_S = 1e-9
# Fields of an Evaluation that only some records have.
GROUP_MEASURES = {
    "unseen_mean_top5_recall": "unseen participants",
    "tail_mean_top5_recall": "tail classes",
}
# The confusion matrix of more classes is mostly zeros: 2,513 classes would take 12 MB of JSON.
DENSE_CLASSES = 200
OnBatch = Callable[[int], None]
RunOrFolder = Run | str | os.PathLike[str]
RecordsOrFolder = Records | str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """How many samples a class has, and the share of them that are correct; None without samples."""

    name: str
    samples: int
    top1: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a run does on a split; accuracies are fractions, intervals of 95 %, bootstrapped over videos.

    Args:
        view: segment that the network saw.
        split: of the records.
        top1_interval, top5_interval, mean_class_accuracy_interval: accuracies with their intervals.
        mean_top5_recall: over the classes that occur, EPIC-KITCHENS' measure.
        many_shot_mean_top5_recall: over those with more than 100 training samples; None without any.
        negative_log_likelihood: in nats.
        expected_calibration_error: over 15 bins.
        samples, videos: how many.
        per_class: of every class, in index order.
        predictions: probabilities of each sample, from which all of these follow.
        differences: in what network and records differ from the training's, where that was insisted on.
        engine, precision: that computed the probabilities.
        unseen_mean_top5_recall, tail_mean_top5_recall: of the participants that no training video shows, and
            over the tail classes, where the records name these, as EPIC-KITCHENS-100's do.
    """

    view: str
    split: str
    top1_interval: Interval
    top5_interval: Interval
    mean_class_accuracy_interval: Interval
    mean_top5_recall: float
    many_shot_mean_top5_recall: float | None
    negative_log_likelihood: float
    expected_calibration_error: float
    samples: int
    videos: int
    per_class: tuple[ClassAccuracy, ...]
    predictions: Predictions = dataclasses.field(repr=False, compare=False)
    differences: tuple[str, ...] = ()
    engine: str = TENSORFLOW
    precision: str = FLOAT32
    unseen_mean_top5_recall: float | None = None
    tail_mean_top5_recall: float | None = None

    @property
    def top1(self) -> float:
        """Share of samples whose most probable class is the label."""
        return self.top1_interval.value

    @property
    def interval(self) -> Interval:
        """Top-1 accuracy with its 95 % interval, `low` to `high`."""
        return self.top1_interval

    @property
    def top5(self) -> float:
        """Share of samples whose label is among the five most probable classes."""
        return self.top5_interval.value

    @property
    def mean_class_accuracy(self) -> float:
        """Top-1 accuracy of each class that occurs, averaged over these."""
        return self.mean_class_accuracy_interval.value

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in index order."""
        return tuple(entry.name for entry in self.per_class)

    @property
    def confusion(self) -> np.ndarray:
        """Counts, rows by label, columns by prediction: int64 `(classes, classes)`."""
        return metrics.confusion_matrix(self.predictions.probabilities, self.predictions.labels)

    def to_dict(self) -> dict[str, Any]:
        """What `kdant evaluate --json` prints: `top1` is a number, `top1_interval` the two ends.

        `confusion` is a row a label; of more than DENSE_CLASSES classes it is None, and `confusion_counts`
        lists [label, prediction, count] where the count is not 0.
        """
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if isinstance(value, Interval):
                fields[name.removesuffix("_interval")] = value.value
                fields[name] = [value.low, value.high]
            elif name == "per_class":
                fields[name] = [dataclasses.asdict(entry) for entry in value]
            elif name == "differences" and value:
                fields[name] = list(value)
            elif name in GROUP_MEASURES and value is None:
                continue
            elif name not in ("predictions", "differences"):
                fields[name] = value
        return {**fields, **self._confusion_fields(), "classes": list(self.classes)}

    def _confusion_fields(self) -> dict[str, Any]:
        counts = self.confusion
        if len(counts) <= DENSE_CLASSES:
            return {"confusion": counts.tolist()}
        places = np.argwhere(counts)
        return {
            "confusion": None,
            "confusion_counts": np.column_stack((places, counts[tuple(places.T)])).tolist(),
        }


def default_view(run: Run) -> str:
    """The segment that a run was trained on: "future" for a teacher, "observed" for what anticipates."""
    return OBSERVED if run.anticipates else FUTURE


def evaluate_run(
    run: RunOrFolder,
    records: RecordsOrFolder,
    *,
    view: str | None = None,
    split: str = "test",
    network: keras.Model | None = None,
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> Evaluation:
    """Evaluates a run on a split and keeps result and predictions in the run folder.

    Args:
        run: a finished run, or its folder.
        records: with the run's classes, clip length and modality, opened or their folder.
        view: "observed" or "future"; None is `default_view`. A teacher on "observed" is the I3D row of
            Table 1's anticipation half.
        split: "test" or "val".
        network: the run's, where it is loaded already.
        engine: that computes the answers: TensorFlow in float32, OpenVINO, or either in bfloat16.
        insist: take records of another offset, frame rate or flow than the run was trained on; the result
            has the `differences`.
        on_batch: called after each batch with its number of clips.

    Returns:
        Accuracies with their intervals, those of each class, and the predictions of each sample.

    Raises:
        RunError: no such run, records that do not fit it, or an engine that cannot do its network.
        RecordError: no such records, or no such split in them.

    Example:
        result = evaluate_run("student", "records")
        print(f"top-1 {result.top1:.3f}, 95 % from {result.interval.low:.3f} to {result.interval.high:.3f}")
        worst = min((each for each in result.per_class if each.samples), key=lambda each: each.top1)
        mistaken = result.predictions.ids[~result.predictions.correct()]
    """
    (run,), records = read_inputs([run], records, split)
    check_one_head(run)
    view = default_view(run) if view is None else check_view(view)
    differences = check_fit([run], records, insist=insist, offset=view == OBSERVED)
    network = load_with_stem(run, network)
    inference = open_inference(network, engine, name=f"run {run.folder}")
    given: dict[str, Any] = {"network": network, "inference": inference, "insist": insist}
    predictions = predict_run(run, records, view=view, split=split, **given, on_batch=on_batch)
    result = dataclasses.replace(
        _summarize(run, records, predictions, view, split),
        differences=differences,
        engine=inference.engine,
        precision=inference.precision,
    )
    confusion = result.confusion if len(result.classes) > DENSE_CLASSES else None
    with keeping(run, result):
        fields = {**result.to_dict(), **inference.to_dict()}
        keep_evaluation(run, view, split, fields, predictions, confusion)
    return result


def keep_evaluation(
    run: Run,
    what: str,
    split: str,
    fields: Mapping[str, Any],
    predictions: Predictions,
    confusion: np.ndarray | None = None,
) -> None:
    """Adds a result to evaluation.json, and what it was computed from to predictions.npz.

    Args:
        run, what, split: see `result_name`.
        fields: of the result, as JSON.
        predictions, confusion: see `save_predictions`.
    """
    name = result_name(run, what, split, predictions.records_sha256)
    save_predictions(run.folder / PREDICTIONS_NAME, f"{name}/{split}", predictions, confusion)
    fields = {**fields, "windows": run.config.windows, **digests(predictions)}
    record_evaluation(run, name, {**fields, "predictions_sha256": predictions.sha256})


def check_one_head(run: Run) -> None:
    """Raises RunError for a run with several answers."""
    if run.heads:
        raise RunError(
            f"Run {run.folder} has the heads {describe_heads(run.heads)}; this is for runs with one answer. "
            f"Evaluate it without a curve, in Python by `kdant_tf.evaluation.heads.evaluate_heads`."
        )


def evaluate_streams(
    runs: Sequence[RunOrFolder],
    records: RecordsOrFolder,
    *,
    weights: Sequence[float],
    view: str | None = None,
    split: str = "test",
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> Evaluation:
    """Evaluates the sum of several runs' logits, such as RGB and Flow (Table 1, column "Both").

    The result is kept in the first run's folder, beside its own.

    Args:
        runs: finished, of one view; each reads the records in its own modality.
        weights: of the runs' logits, see `fuse`.
        records, view, split, engine, insist, on_batch: see `evaluate_run`.

    Raises:
        RunError: records that do not fit a run, or runs with other samples or classes.
    """
    opened, records = read_inputs(runs, records, split)
    first = opened[0]
    for run in opened:
        check_one_head(run)
    view = default_view(first) if view is None else check_view(view)
    differences = check_fit(opened, records, insist=insist, offset=view == OBSERVED)
    given: dict[str, Any] = {"view": view, "split": split, "insist": insist, "on_batch": on_batch}
    streams, inferences = [], []
    for run in opened:
        network = load_with_stem(run)
        inferences.append(open_inference(network, engine, name=f"run {run.folder}"))
        streams.append(predict_run(run, records, network=network, inference=inferences[-1], **given))
    fused = fuse(streams, weights)
    result = dataclasses.replace(
        _summarize(first, records, fused, view, split),
        differences=differences,
        engine=inferences[0].engine,
        precision=inferences[0].precision,
    )
    fusion = {
        "runs": [str(run.folder) for run in opened],
        "weights": list(weights),
        "weights_sha256": [stream.weights_sha256 for stream in streams],
    }
    name = result_name(first, f"{view}, fused", split, fused.records_sha256)
    with keeping(first, result):
        record_evaluation(first, name, {**result.to_dict(), "fusion": fusion, **digests(fused)})
    return result


@contextlib.contextmanager
def keeping(run: Run, result: Any) -> Iterator[None]:
    """What was computed is not lost where it cannot be written."""
    try:
        yield
    except OSError as error:
        raise NotKeptError(
            f"The results were computed but cannot be kept in {run.folder}: {error.strerror or error}. Make "
            f"that folder writable, with room in it, and evaluate again.",
            result,
        ) from error


def digests(predictions: Predictions) -> dict[str, str]:
    """What evaluation.json says of where a result comes from."""
    return {
        "weights_sha256": predictions.weights_sha256,
        "records_sha256": predictions.records_sha256,
    }


def read_inputs(
    runs: Sequence[RunOrFolder], records: RecordsOrFolder, split: str
) -> tuple[list[Run], Records]:
    """Reads what was given as folders; a run on features gets its stem where the records have frames."""
    opened = records if isinstance(records, Records) else Records.open(records, split=split)
    found = [run if isinstance(run, Run) else load_run(run) for run in runs]
    return [run.on_frames() if opened.manifest.features is None else run for run in found], opened


def check_view(view: str) -> str:
    """The view, if it is one; else raises RunError."""
    if view not in (OBSERVED, FUTURE):
        raise RunError(f"`view` should be {OBSERVED} or {FUTURE}. Received: {view!r}.")
    return view


def check_fit(runs: Sequence[Run], records: Records, *, insist: bool, offset: bool = True) -> tuple[str, ...]:
    """In what networks and records differ from the runs' trainings; refused unless that is insisted on.

    Args:
        offset: whether the offset of the records' clips matters.
    """
    found: dict[str, None] = {}
    for run in runs:
        run.check_records(records.manifest, records.folder, insist=True)
        if run.has_other_network and not insist:
            raise RunError(
                f"Run {run.folder} has another {MODEL_NAME} than its training left, whose settings and "
                f"metrics are beside it. Put that one back, or take this one all the same: add --insist."
            )
        found |= dict.fromkeys(run.differences(records.manifest, offset=offset))
    if found and not insist:
        raise RunError(
            f"Run {runs[0].folder} was trained on records that differ from {records.folder} in what decides "
            f"its accuracy: {'; '.join(found)}. Build records that fit, or take these all the same: add "
            f"--insist."
        )
    return tuple(found)


def check_times(records: Records, taus_s: Iterable[float]) -> None:
    """Raises RunError where records keep too few frames before their actions."""
    longest_s, wanted_s = records.manifest.longest_anticipation_s, max(taus_s)
    if longest_s is None or wanted_s > longest_s + _TIME_TOLERANCE_S:
        raise RunError(
            f"Records {records.folder} keep "
            f"{'the clips of one time' if longest_s is None else f'{longest_s:g} s before each action'}. "
            f"Build them with --longest-anticipation-s {math.ceil(100 * wanted_s - 1e-6) / 100:g}."
        )


def predict_run(
    run: Run,
    records: Records,
    *,
    view: str,
    split: str,
    network: keras.Model,
    inference: Inference,
    share: float = 1.0,
    tau_s: float | None = None,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> Predictions:
    """Class probabilities of a split's samples, with the run's windows and crop.

    Args:
        network: of the run.
        inference: what is made of it.
        share, tau_s: what of each segment the network sees, see `evaluation_batches`.
    """
    run.check_records(records.manifest, records.folder, insist=insist)
    records = dataclasses.replace(records, modality=run.modality)
    batches = evaluation_batches(
        records,
        split=split,
        view=view,
        # Whole frames may differ in size.
        batch_size=1 if run.crop is None else BATCH_SIZE,
        crop=run.crop,
        windows=run.config.windows,
        share=share,
        tau_s=tau_s,
    )
    samples = records.split(split).records
    batches = iterate_batches(batches, records, split)
    predictions = predict(network, batches, samples, on_batch, infer=inference, heads=run.heads)
    predictions.check_finite(f"The network of run {run.folder}")
    return dataclasses.replace(
        predictions,
        weights_sha256=weights_sha256(run.model_path),
        records_sha256=manifest_sha256(records.folder),
    )


def predict(
    network: keras.Model,
    batches: Iterable[Mapping[str, tf.Tensor]],
    samples: int,
    on_batch: OnBatch = lambda clips: None,
    infer: Callable[[tf.Tensor], Any] | None = None,
    heads: Heads = (),
) -> Predictions:
    """Class probabilities of each sample in the batches, averaged over its windows (§4.1).

    Args:
        network: model with an output "logits".
        batches: of `evaluation_batches`.
        samples: number of samples in the split.
        on_batch: called after each batch with its number of clips.
        infer: what is made of the network, where it is kept: clips → probabilities, array or tensor.
        heads: of the network; labels are then `(N, n)`, see `tf_records.reader.label_of`.

    Returns:
        Of every sample that was read, also where the network's outputs are not finite: see
        `Predictions.check_finite`.
    """
    infer = compile_inference(network, heads) if infer is None else infer
    sums = np.zeros((samples, network.output["logits"].shape[-1]))
    windows = np.zeros(samples, dtype=np.int64)
    of_label: tuple[int, ...] = ()
    if heads and not are_times(heads):
        of_label = (len(heads[0].classes) if heads[0].several else len(heads),)
    labels = np.full((samples, *of_label), -1, dtype=np.int64)
    ids, videos = np.full(samples, "", dtype=object), np.full(samples, "", dtype=object)
    for batch in batches:
        index = batch["index"].numpy()
        np.add.at(sums, index, np.asarray(infer(batch["clip"])))
        np.add.at(windows, index, 1)
        labels[index] = batch["label"].numpy()
        for names, key in ((ids, "id"), (videos, "video")):
            names[index] = [name.decode() for name in batch[key].numpy()]
        on_batch(len(index))
    read = windows > 0
    # Those of one answer sum to 1, whatever was lost in rounding.
    share = windows[read][:, None] if heads else sums[read].sum(axis=1, keepdims=True)
    return Predictions(
        probabilities=sums[read] / share,
        labels=labels[read],
        ids=ids[read].astype(str),
        videos=videos[read].astype(str),
    )


def _summarize(run: Run, records: Records, predictions: Predictions, view: str, split: str) -> Evaluation:
    train = records.manifest.splits.get("train")
    counts = {} if train is None else train.count_classes(run.classes)
    result = summarize(predictions, run.classes, view=view, split=split, train_counts=counts)
    options = records.manifest.options
    return measure_groups(result, options, str(options.get("target", "")))


def measure_groups(result: Evaluation, options: Mapping[str, Any], target: str) -> Evaluation:
    """Adds the recall of unseen participants and of tail classes, where the records name them.

    Args:
        result: of one answer.
        options: of the records' manifest.
        target: that the answer is for, such as "verb".

    Source: Damen et al. 2022, Rescaling Egocentric Vision, §4.
    """
    probabilities, labels = result.predictions.probabilities, result.predictions.labels
    found: dict[str, Any] = {}
    if "unseen_participants" in options:
        participants = [str(video).split("_")[0] for video in result.predictions.videos]
        unseen = np.isin(participants, options["unseen_participants"])
        found["unseen_mean_top5_recall"] = metrics.mean_top_k_recall(probabilities[unseen], labels[unseen])
    if target in options.get("tail_classes", {}):
        tail = np.flatnonzero(np.isin(result.classes, options["tail_classes"][target]))
        found["tail_mean_top5_recall"] = metrics.mean_top_k_recall(probabilities, labels, classes=tail)
    measured: dict[str, Any] = {n: None if math.isnan(share) else share for n, share in found.items()}
    return dataclasses.replace(result, **measured)


def summarize(
    predictions: Predictions,
    classes: tuple[str, ...],
    *,
    view: str,
    split: str,
    train_counts: Mapping[str, int],
) -> Evaluation:
    """All metrics of a network's predictions.

    Args:
        predictions: of one sample or more.
        classes: names in index order.
        view, split: noted in the result.
        train_counts: labelled training samples of a class, by name; decides which are many-shot.
    """
    probabilities, labels, videos = predictions.probabilities, predictions.labels, predictions.sources
    accuracy, support = metrics.per_class_accuracy(probabilities, labels)
    counts = np.array([train_counts.get(name, 0) for name in classes])
    many_shot = metrics.mean_top_k_recall(probabilities, labels, classes=metrics.many_shot_classes(counts))
    return Evaluation(
        view=view,
        split=split,
        top1_interval=accuracy_interval(predictions.correct(1), videos),
        top5_interval=accuracy_interval(predictions.correct(5), videos),
        mean_class_accuracy_interval=mean_class_accuracy_interval(predictions.correct(1), labels, videos),
        mean_top5_recall=metrics.mean_top_k_recall(probabilities, labels),
        many_shot_mean_top5_recall=None if math.isnan(many_shot) else many_shot,
        negative_log_likelihood=metrics.negative_log_likelihood(probabilities, labels),
        expected_calibration_error=metrics.expected_calibration_error(probabilities, labels),
        samples=len(labels),
        videos=len(np.unique(videos)),
        per_class=tuple(
            ClassAccuracy(name=name, samples=int(n), top1=None if n == 0 else float(share))
            for name, n, share in zip(classes, support, accuracy, strict=True)
        ),
        predictions=predictions,
    )
