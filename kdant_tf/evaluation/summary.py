"""From predictions to all the numbers that are said of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdant_tf.evaluation import metrics
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.evaluation.statistics import Interval, bootstrap_interval, mean_interval


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """Of one class: how many samples it has, and the share of them that are right."""

    name: str
    samples: int
    top1: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `kdant evaluate` says; accuracies are fractions, intervals are of 95 %, bootstrapped over videos.

    Args:
        view: segment that the network saw.
        split: of the records.
        top1, top5, mean_class_accuracy: with their intervals.
        mean_top5_recall: over the classes that occur, EPIC-KITCHENS' measure.
        many_shot_mean_top5_recall: over those with more than 100 training samples; None without any.
        negative_log_likelihood: in nats.
        expected_calibration_error: over 15 bins.
        samples, videos: how many.
        per_class: of every class, in index order.
        confusion: counts, rows by label, columns by prediction.
    """

    view: str
    split: str
    top1: Interval
    top5: Interval
    mean_class_accuracy: Interval
    mean_top5_recall: float
    many_shot_mean_top5_recall: float | None
    negative_log_likelihood: float
    expected_calibration_error: float
    samples: int
    videos: int
    per_class: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.per_class)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: `top1` is a number, `top1_interval` the two ends."""
        fields = dataclasses.asdict(self)
        for name in ("top1", "top5", "mean_class_accuracy"):
            interval = getattr(self, name)
            fields[name] = interval.value
            fields[f"{name}_interval"] = [interval.low, interval.high]
        return {**fields, "classes": list(self.classes)}


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
        predictions: of the network.
        classes: names in index order.
        view, split: noted in the result.
        train_counts: labelled training samples of a class, by name; decides which are many-shot.
    """
    probabilities, labels, videos = predictions.probabilities, predictions.labels, predictions.videos
    accuracy, support = metrics.per_class_accuracy(probabilities, labels)
    counts = np.array([train_counts.get(name, 0) for name in classes])
    many_shot = metrics.mean_top_k_recall(probabilities, labels, classes=metrics.many_shot_classes(counts))
    return Evaluation(
        view=view,
        split=split,
        top1=mean_interval(predictions.right(1), videos),
        top5=mean_interval(predictions.right(5), videos),
        mean_class_accuracy=bootstrap_interval(
            lambda drawn: metrics.mean_class_accuracy(probabilities[drawn], labels[drawn]), videos
        ),
        mean_top5_recall=metrics.mean_top_k_recall(probabilities, labels),
        many_shot_mean_top5_recall=None if np.isnan(many_shot) else many_shot,
        negative_log_likelihood=metrics.negative_log_likelihood(probabilities, labels),
        expected_calibration_error=metrics.expected_calibration_error(probabilities, labels),
        samples=len(labels),
        videos=len(np.unique(videos)),
        per_class=tuple(
            ClassAccuracy(name=name, samples=int(n), top1=None if n == 0 else float(share))
            for name, n, share in zip(classes, support, accuracy, strict=True)
        ),
        confusion=tuple(tuple(row) for row in metrics.confusion_matrix(probabilities, labels).tolist()),
    )
