"""Metrics on probabilities. NumPy in, plain numbers or arrays out; every sample counts once."""

import numpy as np

MANY_SHOT = 100
_SMALLEST = 1e-7


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of samples whose label is among the `k` most probable classes.

    Ties go to the lower class index, so that the result does not depend on the sort.

    Args:
        probabilities: float `(N, classes)`.
        labels: int `(N,)`.
        k: int >= 1; with as many classes or fewer the result is 1.
    """
    return float(np.mean(in_top_k(probabilities, labels, k)))


def in_top_k(probabilities: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether each sample's label is among the `k` most probable classes: bool `(N,)`."""
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.any(ranked == labels[:, None], axis=1)


def mean_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of each class that occurs, averaged over those classes."""
    return mean_top_k_recall(probabilities, labels, 1)


def per_class_accuracy(
    probabilities: np.ndarray, labels: np.ndarray, k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Top-k accuracy among the samples of each class, which is the class's recall.

    Returns:
        Accuracy float64 `(classes,)`, NaN for a class that does not occur, and support int64 `(classes,)`.
    """
    classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[in_top_k(probabilities, labels, k)], minlength=classes)
    return np.divide(right, support, out=np.full(classes, np.nan), where=support > 0), support


def mean_top_k_recall(
    probabilities: np.ndarray, labels: np.ndarray, k: int = 5, classes: np.ndarray | None = None
) -> float:
    """Top-k recall averaged over classes, the measure of EPIC-KITCHENS' anticipation challenge at k = 5.

    Args:
        probabilities: float `(N, classes)`.
        labels: int `(N,)`.
        k: int >= 1.
        classes: indices to average over, such as `many_shot_classes`; None for all. Those that do not
            occur in `labels` do not count.

    Returns:
        float; NaN where no such class occurs.
    """
    recall, support = per_class_accuracy(probabilities, labels, k)
    chosen = support > 0
    if classes is not None:
        chosen &= np.isin(np.arange(len(support)), classes)
    return float(np.mean(recall[chosen])) if np.any(chosen) else float("nan")


def many_shot_classes(train_counts: np.ndarray, minimum: int = MANY_SHOT) -> np.ndarray:
    """Indices of classes with more than `minimum` training samples: int64, ascending.

    Args:
        train_counts: int `(classes,)`, labelled training samples of each class.

    Source: Damen et al. 2018, Scaling Egocentric Vision, §4.2.
    """
    return np.flatnonzero(train_counts > minimum)


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of samples by label (rows) and most probable class (columns): int64 `(classes, classes)`."""
    classes = probabilities.shape[1]
    pairs = labels * classes + np.argmax(probabilities, axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the label's probability, in nats.

    Probabilities below 1e-7, float32's step, count as that: one of 0 would make the mean infinite.
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(chosen, _SMALLEST))))


def calibration_bins(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence and accuracy of the samples in equal bins of confidence, for a reliability diagram.

    Args:
        probabilities: float `(N, classes)`; the largest of a sample is its confidence.
        labels: int `(N,)`.
        bins: int >= 1, over (0, 1]; a bin holds its upper edge.

    Returns:
        Mean confidence and accuracy, float64 `(bins,)`, NaN where a bin is empty, and counts int64 `(bins,)`.
    """
    confidence = probabilities.max(axis=1)
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    sums = (
        np.bincount(number, weights=values.astype(np.float64), minlength=bins)
        for values in (confidence, in_top_k(probabilities, labels))
    )
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return means[0], means[1], counts


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Distance of accuracy from confidence, averaged over the samples' bins.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3.
    """
    confidence, accuracy, counts = calibration_bins(probabilities, labels, bins)
    return float(np.nansum(np.abs(accuracy - confidence) * counts) / len(labels))
