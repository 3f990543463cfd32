"""Metrics on probabilities, how sure an accuracy is, and whether two differ. NumPy in, plain numbers out.

Every sample counts once; intervals are of 95 %, and draw the samples of one video together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

MANY_SHOT = 100
RESAMPLES = 2000
_SMALLEST_PROBABILITY = 1e-7
_Z_95 = 1.959964


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Top-1 accuracy where a network sees the share `x` of a video, or a clip that ends `x` seconds early.

    Of several labels a clip it is mean average precision.
    """

    x: float
    top1: Interval


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much more often the second of two networks is correct than the first, on the same samples.

    Args:
        difference: of the two accuracies, with its bootstrap interval.
        only_first, only_second: samples that only one of them has correct.
        p_value: two-sided, see `sign_flip_test`.
    """

    difference: Interval
    only_first: int
    only_second: int
    p_value: float


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
    """Whether each sample's label is among the `k` most probable classes: bool `(N,)`.

    Counts the classes that come before the label, which takes no sort; NaN comes after all numbers. No
    label, -1, is among none.
    """
    values = np.where(np.isnan(probabilities), -np.inf, probabilities)
    of_label = values[np.arange(len(labels)), labels][:, None]
    lower_index = np.arange(values.shape[1]) < labels[:, None]
    before = np.count_nonzero((values > of_label) | ((values == of_label) & lower_index), axis=1)
    return np.asarray((before < k) & (labels >= 0))


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
    return _recall(in_top_k(probabilities, labels, k), labels, probabilities.shape[1])


def _recall(hits: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of each class's samples that are hits, NaN for a class that does not occur, and support."""
    support = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[hits], minlength=classes)
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


def average_precision(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve of each class, as a sum over its steps, without interpolation.

    AP = Σ_n (R_n − R_{n−1})·P_n, precision and recall at each threshold; samples of equal probability come
    together.

    Args:
        probabilities: float `(N, classes)`.
        labels: int `(N, classes)`, 1 where a sample has a class, else 0.

    Returns:
        float64 `(classes,)`, NaN for a class that no sample has.
    """
    return _Ranking(probabilities, labels).average_precision(np.ones(len(labels)))


class _Ranking:
    """The samples in the order of each class's probability, which a bootstrap needs to find but once."""

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        self._order = np.argsort(-probabilities, axis=0, kind="stable")
        ranked = np.take_along_axis(probabilities, self._order, axis=0)
        self._positive = np.take_along_axis(labels, self._order, axis=0) > 0
        # The last place of those of equal probability, where their threshold is.
        last = np.ones(ranked.shape, dtype=bool)
        last[:-1] = ranked[1:] != ranked[:-1]
        places = np.where(last, np.arange(len(ranked))[:, None], len(ranked))
        self._threshold = np.minimum.accumulate(places[::-1], axis=0)[::-1]

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Of samples that count `weights` times: float64 `(classes,)`."""
        seen = weights[self._order]
        right = np.cumsum(seen * self._positive, axis=0)
        all_seen = np.cumsum(seen, axis=0)
        at = self._threshold
        found, drawn = np.take_along_axis(right, at, axis=0), np.take_along_axis(all_seen, at, axis=0)
        precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
        total = right[-1]
        area = np.sum(seen * self._positive * precision, axis=0)
        precisions: np.ndarray = np.divide(area, total, out=np.full(total.shape, np.nan), where=total > 0)
        return precisions


def mean_average_precision_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    videos: np.ndarray,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """Average precision of the classes that occur, averaged over these, with its 95 % interval.

    Args:
        probabilities, labels: see `average_precision`.
        videos, resamples, seed: see `bootstrap_interval`.
    """
    ranking = _Ranking(probabilities, labels)
    _, inverse = np.unique(videos, return_inverse=True)
    count = int(inverse.max()) + 1
    rng = np.random.default_rng(seed)

    def mean(weights: np.ndarray) -> float:
        own = ranking.average_precision(weights)
        return float(np.mean(own[~np.isnan(own)])) if not np.all(np.isnan(own)) else math.nan

    drawn = [
        mean(np.bincount(rng.integers(count, size=count), minlength=count)[inverse].astype(np.float64))
        for _ in range(resamples)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(value=mean(np.ones(len(labels))), low=float(low), high=float(high))


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
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(of_label, _SMALLEST_PROBABILITY))))


def binary_negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over samples of the sum over classes of -log of what is right, in nats.

    Args:
        probabilities: float `(N, classes)`, of each class by itself.
        labels: int `(N, classes)`, 1 where a sample has a class, else 0.
    """
    right = np.where(labels > 0, probabilities, 1 - probabilities)
    return float(-np.mean(np.sum(np.log(np.maximum(right, _SMALLEST_PROBABILITY)), axis=1)))


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


def bootstrap_interval(
    metric: Callable[[np.ndarray], float], videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap over videos, for any metric.

    Samples of one video are drawn together, as they resemble each other. The metric is computed anew for
    each draw: what it takes of each sample is better computed once, before.

    Args:
        metric: indices of samples, int `(n,)` with repetitions → a number. NaN counts as no draw.
        videos: of the samples, any dtype, `(N,)`.
        resamples: int >= 1.
        seed: of the draws.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    sizes = np.bincount(inverse)
    firsts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        counts = sizes[drawn]
        # Places in `order` of one drawn video's samples after the other's.
        shift = np.repeat(firsts[drawn] - (np.cumsum(counts) - counts), counts)
        values.append(metric(order[shift + np.arange(len(shift))]))
    low, high = np.nanquantile(values, (0.025, 0.975))
    return Interval(value=metric(np.arange(len(videos))), low=float(low), high=float(high))


def mean_class_accuracy_interval(
    correct: np.ndarray,
    labels: np.ndarray,
    videos: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """`mean_class_accuracy` with its interval; Wilson's where all samples are correct, or none.

    Args:
        correct: whether the most probable class is the label, bool `(N,)`.
        labels: int `(N,)`.
        videos, resamples, seed: see `bootstrap_interval`.
    """
    if np.all(correct) or not np.any(correct):
        return wilson_interval(correct, videos)
    classes = int(labels.max(initial=0)) + 1

    def mean_accuracy(drawn: np.ndarray) -> float:
        accuracy, support = _recall(correct[drawn], labels[drawn], classes)
        return float(np.mean(accuracy[support > 0]))

    return bootstrap_interval(mean_accuracy, videos, resamples=resamples, seed=seed)


def mean_interval(
    values: np.ndarray, videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """`bootstrap_interval` of the samples' mean, computed at once.

    Args:
        values: of the samples, float or bool `(N,)`.
        videos, resamples, seed: see `bootstrap_interval`.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    sums, counts = np.bincount(inverse, weights=values.astype(np.float64)), np.bincount(inverse)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(len(counts), size=len(counts))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(value=float(np.mean(values)), low=float(low), high=float(high))


def accuracy_interval(
    correct: np.ndarray, videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """An accuracy with its bootstrapped interval, or with Wilson's where all samples are correct, or none.

    Args:
        correct: bool `(N,)`, N >= 1.
        videos, resamples, seed: see `bootstrap_interval`.

    Example:
        >>> accuracy_interval(np.array([True, True]), np.arange(2)).low > 0.3
        True
    """
    if np.all(correct) or not np.any(correct):
        return wilson_interval(correct, videos)
    return mean_interval(correct, videos, resamples=resamples, seed=seed)


def wilson_interval(correct: np.ndarray, videos: np.ndarray) -> Interval:
    """An accuracy with Wilson's interval, for as many trials as there are videos.

    It has a width where all of a few samples are correct, or none, which the bootstrap's has not.

    Args:
        correct: bool `(N,)`, N >= 1.
        videos: of the samples, any dtype, `(N,)`.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    share, trials, z = float(np.mean(correct)), len(np.unique(videos)), _Z_95
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def compare_paired(
    first: np.ndarray, second: np.ndarray, videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Compares two networks sample by sample.

    Args:
        first, second: which samples each has correct, bool `(N,)`.
        videos, resamples, seed: see `bootstrap_interval`.
    """
    gained = second.astype(np.float64) - first.astype(np.float64)
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return PairedDifference(
        difference=mean_interval(gained, videos, resamples=resamples, seed=seed),
        only_first=only_first,
        only_second=only_second,
        p_value=sign_flip_test(gained, videos),
    )


def sign_flip_test(gained: np.ndarray, videos: np.ndarray) -> float:
    """Two-sided p that two networks are equally good, by the sum of each video's gains.

    Were they equally good, a video's gain might as well be its loss: p is the share of all ways to draw the
    signs in which the sum is as far from zero as it is, or farther. It is computed exactly. Where each video
    has one sample, this is McNemar's exact test.

    Args:
        gained: of the samples, 1 where only the second network is correct, -1 where only the first is, else
            0; int `(N,)`.
        videos: see `bootstrap_interval`.

    Source: Fisher 1935, The Design of Experiments, §21; McNemar 1947.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    sums = np.rint(np.bincount(inverse, weights=gained)).astype(np.int64)
    steps = np.abs(sums[sums != 0])
    reach = int(steps.sum())
    chances = np.zeros(2 * reach + 1)  # Of each sum from -reach to reach.
    chances[reach] = 1.0
    for step in steps:
        # What lies beyond the ends is still 0, so that rolling brings nothing around.
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(sums.sum()))
    return float(min(1.0, chances[far].sum()))
