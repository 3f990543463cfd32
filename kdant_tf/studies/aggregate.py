"""From results at each place to a mean, its spread, and a paired difference. NumPy in, plain values out."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kdant_tf.evaluation.statistics import RESAMPLES, Interval
from kdant_tf.studies.study import Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """Over places.

    Args:
        mean: of the splits' means over their seeds, so that a split counts once however many seeds it has.
        sd: standard deviation over `sd_over`; None of a single value.
        sd_over: "seeds": of one split's values around their mean, pooled over splits; "splits": of the
            splits' values, where each has a single seed.
        places: how many.
    """

    mean: float
    sd: float | None
    sd_over: str
    places: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSamples:
    """A value of each test sample at one place.

    Args:
        values: float or bool `(N,)`.
        videos: str `(N,)`.
    """

    values: np.ndarray
    videos: np.ndarray


def average(values: Mapping[Place, float]) -> Average:
    """Mean and spread of one number a place; at least one."""
    splits = _by_split(values)
    means = [float(np.mean(each)) for each in splits]
    freedom = sum(len(each) - 1 for each in splits)
    if freedom > 0:
        squares = sum(float(np.sum((each - np.mean(each)) ** 2)) for each in splits)
        sd, over = (squares / freedom) ** 0.5, "seeds"
    else:
        sd, over = (float(np.std(means, ddof=1)) if len(means) > 1 else None), "splits"
    return Average(
        mean=float(np.mean(means)), sd=sd, sd_over=over if sd is not None else "", places=len(values)
    )


def paired_difference(
    gained: Mapping[Place, PlacedSamples],
    *,
    draw_seeds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of a per-sample difference, with a 95 % interval from a bootstrap over videos, or seeds too.

    Within a split a sample's difference is averaged over seeds first, and a split counts once, so that the
    value is the difference of two `average` means. Videos are drawn with all their samples, in all
    splits that test on them. The interval is about other test videos, for these trainings: how much other
    seeds would change it is what the standard deviation over seeds tells, or `draw_seeds`.

    Args:
        gained: at each place, what the second network has right minus what the first has, in -1, 0, 1; the
            samples of a split are the same at all its places.
        draw_seeds: draw seeds too, in each split one fewer than it has, so that the draws' variance is that
            of a mean over seeds (Rao and Wu 1988); where a split has a single seed, it stays.
        resamples: int >= 1.
        seed: of the draws.
    """
    splits = [
        [samples for place, samples in gained.items() if place.split == split]
        for split in dict.fromkeys(place.split for place in gained)
    ]
    names = np.unique(np.concatenate([seeds[0].videos for seeds in splits]))
    # For each split, what each seed gains on each video; the weights of a split's samples add up to 1.
    tables = [np.stack([_sum_videos(each.values, each.videos, names) for each in seeds]) for seeds in splits]
    masses = np.sum([_sum_videos(np.ones(len(s[0].videos)), s[0].videos, names) for s in splits], axis=0)
    whole = np.sum([table.mean(axis=0) for table in tables], axis=0)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        sums = np.sum([_draw_seeds(rng, table) for table in tables], axis=0) if draw_seeds else whole
        drawn = rng.integers(len(names), size=len(names))
        means.append(sums[drawn].sum() / masses[drawn].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(value=float(whole.sum() / masses.sum()), low=float(low), high=float(high))


def _sum_videos(values: np.ndarray, videos: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Float `(len(names),)`: each video's share of the samples' mean."""
    weights = values.astype(np.float64) / len(values)
    return np.bincount(np.searchsorted(names, videos), weights=weights, minlength=len(names))


def _draw_seeds(rng: np.random.Generator, table: np.ndarray) -> np.ndarray:
    """Mean over some seeds, drawn with repetitions, of `(seeds, videos)`."""
    seeds = len(table)
    return table[rng.integers(seeds, size=max(1, seeds - 1))].mean(axis=0)


def _by_split(values: Mapping[Place, float]) -> Sequence[np.ndarray]:
    splits = dict.fromkeys(place.split for place in values)
    return [np.array([value for place, value in values.items() if place.split == name]) for name in splits]
