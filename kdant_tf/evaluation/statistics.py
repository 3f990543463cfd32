"""How sure an accuracy is, and whether two differ. NumPy in, plain numbers out."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Top-1 accuracy where a network sees the share `x` of a video, or a clip that ends `x` seconds early."""

    x: float
    top1: Interval


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """What the second of two networks gets right more often, on the same samples.

    Args:
        difference: of the two accuracies, with its bootstrap interval.
        only_first, only_second: samples that only one of them has right.
        p_value: McNemar's exact test, two-sided.
    """

    difference: Interval
    only_first: int
    only_second: int
    p_value: float


def bootstrap_interval(
    metric: Callable[[np.ndarray], float], videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap over videos: samples of one video are drawn together, as they resemble each other.

    Args:
        metric: indices of samples, int `(n,)` with repetitions → a number. NaN counts as no draw.
        videos: of the samples, any dtype, `(N,)`.
        resamples: int >= 1.
        seed: of the draws.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.integers(len(members), size=len(members))
        values.append(metric(np.concatenate([members[number] for number in drawn])))
    low, high = np.nanquantile(values, (0.025, 0.975))
    return Interval(value=metric(np.arange(len(videos))), low=float(low), high=float(high))


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


def compare_paired(
    first: np.ndarray, second: np.ndarray, videos: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Compares two networks sample by sample.

    Args:
        first, second: which samples each has right, bool `(N,)`.
        videos, resamples, seed: see `bootstrap_interval`.
    """
    gained = second.astype(np.float64) - first.astype(np.float64)
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return PairedDifference(
        difference=mean_interval(gained, videos, resamples=resamples, seed=seed),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar_exact(only_first, only_second),
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p that two networks are equally good, given what only one of them has right.

    The discordant samples are then tosses of a fair coin.

    Source: McNemar 1947; the exact binomial form.
    """
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(tosses, heads) for heads in range(fewer + 1))
    return min(1.0, 2 * tail / 2**tosses)
