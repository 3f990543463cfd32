"""Means over splits and seeds, and paired differences, on hand-made numbers."""

import numpy as np
import pytest

from kdant_tf.studies.results import SampleValues, average, paired_difference
from kdant_tf.studies.study_plan import Place


def test_a_split_counts_once_and_seeds_spread_around_their_own_split() -> None:
    values = {Place("1", 0): 0.4, Place("2", 0): 0.7, Place("1", 1): 0.5, Place("1", 2): 0.6}
    result = average(values)
    assert result.mean == pytest.approx((0.5 + 0.7) / 2)
    # (0.01 + 0 + 0.01) / 2 degrees of freedom, all of split 1.
    assert result.sd == pytest.approx(0.1)
    assert (result.sd_over, result.places) == ("seeds", 4)


def test_seeds_are_pooled_over_splits() -> None:
    values = {Place("1", 0): 0.4, Place("1", 1): 0.6, Place("2", 0): 0.7, Place("2", 1): 0.7}
    assert average(values).sd == pytest.approx((0.02 / 2) ** 0.5)


def test_one_seed_a_split_spreads_over_splits_and_one_value_not_at_all() -> None:
    result = average({Place("1", 0): 0.4, Place("2", 0): 0.6})
    assert (result.sd_over, result.sd) == ("splits", pytest.approx(0.02**0.5))
    alone = average({Place("1", 3): 0.25})
    assert (alone.mean, alone.sd, alone.sd_over, alone.places) == (0.25, None, "", 1)


def samples(values: list[int], videos: str) -> SampleValues:
    return SampleValues(values=np.array(values), videos=np.array(list(videos)))


def test_the_difference_is_that_of_the_means() -> None:
    gained = {
        Place("1", 0): samples([1, 0, -1, 1], "abcd"),
        Place("1", 1): samples([1, 1, 0, 1], "abcd"),
        Place("2", 0): samples([-1, 0], "ae"),
    }
    result = paired_difference(gained)
    per_place = {place: float(np.mean(each.values)) for place, each in gained.items()}
    assert result.value == pytest.approx(average(per_place).mean)
    assert result.value == pytest.approx(((0.25 + 0.75) / 2 - 0.5) / 2)
    assert result.low < result.value < result.high


def test_a_video_is_drawn_with_all_its_samples_of_all_splits() -> None:
    """What one video gains in one split and loses in another cancels in every draw."""
    gained = {Place("1", 0): samples([1, -1], "ab"), Place("2", 0): samples([-1, 1], "ab")}
    result = paired_difference(gained)
    assert (result.low, result.value, result.high) == (0, 0, 0)


def test_more_seeds_do_not_make_up_for_few_videos() -> None:
    """The same samples again are no further evidence."""
    once = {Place("1", 0): samples([1, 0, -1, 1, 1, 0], "abcdef")}
    often = {Place("1", seed): once[Place("1", 0)] for seed in range(9)}
    assert paired_difference(often) == paired_difference(once)


def test_the_interval_is_that_of_an_independent_bootstrap() -> None:
    rng = np.random.default_rng(0)
    values, videos = rng.integers(-1, 2, 60), rng.integers(0, 25, 60).astype(str)
    result = paired_difference({Place("1", 0): SampleValues(values=values, videos=videos)})
    names = np.unique(videos)
    draws = []
    for _ in range(4000):
        chosen = rng.choice(names, len(names))
        draws.append(np.mean(np.concatenate([values[videos == name] for name in chosen])))
    assert result.low == pytest.approx(np.quantile(draws, 0.025), abs=0.03)
    assert result.high == pytest.approx(np.quantile(draws, 0.975), abs=0.03)
