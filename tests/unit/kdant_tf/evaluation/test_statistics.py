"""Intervals and paired tests on hand-made cases, and against SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kdant_tf.evaluation.metrics import bootstrap_interval, compare_paired, mcnemar_exact, mean_interval


@given(only_first=st.integers(0, 60), only_second=st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    tosses = only_first + only_second
    expected = binomtest(only_first, tosses).pvalue if tosses else 1.0
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected)


def test_mcnemar_knows_large_counts():
    assert 0 < mcnemar_exact(2000, 2400) < 1e-8


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 60))
def test_the_quick_form_for_means_draws_what_the_general_one_draws(seed, samples):
    rng = np.random.default_rng(seed)
    values, videos = rng.random(samples), rng.integers(0, 9, samples)
    quick = mean_interval(values, videos, resamples=20, seed=seed)
    general = bootstrap_interval(lambda index: float(values[index].mean()), videos, resamples=20, seed=seed)
    for name in ("value", "low", "high"):
        assert getattr(quick, name) == pytest.approx(getattr(general, name))


def test_the_interval_of_a_mean_has_the_width_that_theory_says():
    right = np.arange(400) % 4 == 0
    interval = mean_interval(right, np.arange(400))
    standard_error = np.sqrt(0.25 * 0.75 / 400)
    assert interval.value == 0.25
    assert (interval.high - interval.low) / (2 * 1.96 * standard_error) == pytest.approx(1, abs=0.08)


def test_samples_of_one_video_make_an_interval_wider():
    right = np.repeat(np.arange(40) % 2 == 0, 10)
    alone = mean_interval(right, np.arange(400))
    together = mean_interval(right, np.repeat(np.arange(40), 10))
    # Ten equal samples a video: the standard error is √10 times as large.
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.12)


def test_one_video_has_no_spread():
    interval = mean_interval(np.array([True, False]), np.array(["a", "a"]))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_intervals_are_equal_for_equal_seeds():
    values, videos = np.random.default_rng(0).random(50), np.arange(50)
    assert mean_interval(values, videos, seed=3) == mean_interval(values, videos, seed=3)
    assert mean_interval(values, videos, seed=3) != mean_interval(values, videos, seed=4)


def test_a_paired_difference_counts_what_only_one_has_right():
    first = np.array([True, True, False, False, False, False])
    second = np.array([True, False, True, True, True, False])
    result = compare_paired(first, second, np.arange(6))
    assert (result.only_first, result.only_second) == (1, 3)
    assert result.difference.value == pytest.approx(2 / 6)
    assert result.difference.low < 2 / 6 < result.difference.high
    assert result.p_value == pytest.approx(2 * (1 + 4) / 16)


def test_equal_networks_do_not_differ():
    right = np.array([True, False, True])
    result = compare_paired(right, right, np.arange(3))
    assert result.p_value == 1.0
    assert (result.difference.low, result.difference.value, result.difference.high) == (0, 0, 0)
