"""Metrics, intervals and paired tests against scikit-learn and SciPy, and where these have no answer."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, log_loss, recall_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from kdant_tf.evaluation.metrics import (
    accuracy_interval,
    bootstrap_interval,
    calibration_bins,
    compare_paired,
    confusion_matrix,
    expected_calibration_error,
    in_top_k,
    many_shot_classes,
    mean_class_accuracy,
    mean_class_accuracy_interval,
    mean_interval,
    mean_top_k_recall,
    negative_log_likelihood,
    per_class_accuracy,
    sign_flip_test,
    top_k_accuracy,
    wilson_interval,
)


def random_probabilities(seed: int, samples: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), samples)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 40), k=st.integers(1, 5))
def test_top_k_accuracy_is_scikit_learns(seed, samples, k):
    probabilities = random_probabilities(seed, samples, 6)
    labels = np.random.default_rng(seed + 1).integers(0, 6, samples)
    expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(6))
    assert top_k_accuracy(probabilities, labels, k) == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(4, 40))
def test_mean_class_accuracy_is_scikit_learns_balanced_accuracy(seed, samples):
    probabilities = random_probabilities(seed, samples, 4)
    rest = np.random.default_rng(seed + 1).integers(0, 4, samples - 4)
    labels = np.concatenate([np.arange(4), rest])
    expected = balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    assert mean_class_accuracy(probabilities, labels) == pytest.approx(expected)


def test_classes_that_do_not_occur_do_not_count():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0]])
    assert mean_class_accuracy(probabilities, np.array([0, 1, 1])) == pytest.approx((1 + 0.5) / 2)


def test_as_many_ranks_as_classes_are_always_right():
    probabilities = random_probabilities(0, 5, 3)
    for k in (3, 5):
        assert top_k_accuracy(probabilities, np.array([0, 1, 2, 0, 1]), k) == 1.0


def test_ties_go_to_the_lower_class():
    probabilities = np.full((3, 3), 1 / 3)
    assert top_k_accuracy(probabilities, np.array([0, 1, 2]), 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(probabilities, np.array([2, 1, 1]), 2) == pytest.approx(2 / 3)


def sort_into_top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """`in_top_k` by a stable sort."""
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.any(ranked == labels[:, None], axis=1)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(0, 30), k=st.integers(1, 8))
def test_hits_are_those_of_a_stable_sort_also_with_ties_and_without_numbers(seed, samples, k):
    rng = np.random.default_rng(seed)
    probabilities = rng.choice([0.0, 0.25, 0.5, np.nan], (samples, 6), p=[0.3, 0.3, 0.3, 0.1])
    labels = rng.integers(-1, 6, samples)
    expected = sort_into_top_k(probabilities, labels, k)
    np.testing.assert_array_equal(in_top_k(probabilities, labels, k), expected)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 30))
def test_a_draw_holds_all_samples_of_the_drawn_videos_one_video_after_the_other(seed, samples):
    videos = np.random.default_rng(seed).integers(0, 5, samples)
    draws = []
    bootstrap_interval(lambda index: draws.append(index) or 0.0, videos, resamples=5, seed=seed)
    names = np.unique(videos)
    rng = np.random.default_rng(seed)
    for draw in draws[:5]:
        drawn = rng.integers(len(names), size=len(names))
        expected = np.concatenate([np.flatnonzero(videos == names[number]) for number in drawn])
        np.testing.assert_array_equal(draw, expected)


def test_results_are_plain_numbers():
    probabilities, labels = random_probabilities(0, 5, 3), np.array([0, 1, 2, 0, 1])
    assert type(top_k_accuracy(probabilities, labels)) is float
    assert type(mean_class_accuracy(probabilities, labels)) is float


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 40))
def test_per_class_accuracy_is_scikit_learns_recall(seed, samples):
    probabilities = random_probabilities(seed, samples, 4)
    labels = np.random.default_rng(seed + 1).integers(0, 4, samples)
    accuracy, support = per_class_accuracy(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    expected = recall_score(labels, predicted, labels=range(4), average=None, zero_division=np.nan)
    np.testing.assert_allclose(accuracy, expected)
    np.testing.assert_array_equal(support, np.bincount(labels, minlength=4))


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(2, 40))
def test_confusion_and_likelihood_are_scikit_learns(seed, samples):
    probabilities = random_probabilities(seed, samples, 4)
    labels = np.random.default_rng(seed + 1).integers(0, 4, samples)
    expected = sklearn_confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(4))
    np.testing.assert_array_equal(confusion_matrix(probabilities, labels), expected)
    expected_loss = log_loss(labels, np.maximum(probabilities, 1e-7), labels=range(4))
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(expected_loss)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 6))
def test_mean_recall_is_top_k_accuracy_with_every_class_weighing_the_same(seed, k):
    probabilities = random_probabilities(seed, 60, 6)
    labels = np.arange(60) % 6
    weighted = top_k_accuracy_score(labels, probabilities, k=k, labels=range(6)) if k < 6 else 1.0
    assert mean_top_k_recall(probabilities, labels, k) == pytest.approx(weighted)


def test_mean_top_5_recall_by_hand():
    # Ten classes, the scores of each sample in falling order of the class index.
    probabilities = np.tile(np.linspace(1, 0.1, 10) / 5.5, (5, 1))
    labels = np.array([0, 0, 4, 5, 5])
    assert top_k_accuracy(probabilities, labels, 5) == pytest.approx(3 / 5)
    assert mean_top_k_recall(probabilities, labels) == pytest.approx((1 + 1 + 0) / 3)
    assert mean_top_k_recall(probabilities, labels, classes=np.array([4, 5, 9])) == pytest.approx(1 / 2)
    assert np.isnan(mean_top_k_recall(probabilities, labels, classes=np.array([9])))


def test_many_shot_classes_occur_more_often_than_the_minimum():
    np.testing.assert_array_equal(many_shot_classes(np.array([100, 101, 3])), [1])
    np.testing.assert_array_equal(many_shot_classes(np.array([100, 101, 3]), 2), [0, 1, 2])


def test_calibration_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.85, 0.15], [0.45, 0.55], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    confidence, accuracy, counts = calibration_bins(probabilities, labels, 2)
    np.testing.assert_allclose(confidence, [np.nan, (0.95 + 0.85 + 0.55 + 0.6) / 4])
    np.testing.assert_allclose(accuracy, [np.nan, 0.75])
    np.testing.assert_array_equal(counts, [0, 4])
    expected = (abs(1 - 0.95) + abs(0 - 0.85) + abs(1 - 0.55) + abs(1 - 0.6)) / 4
    assert expected_calibration_error(probabilities, labels, 1000) == pytest.approx(expected)


def test_a_bin_holds_its_upper_edge():
    _, _, counts = calibration_bins(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), 2)
    np.testing.assert_array_equal(counts, [1, 1])


def test_certain_and_right_is_calibrated_and_likely():
    probabilities, labels = np.eye(3), np.arange(3)
    assert expected_calibration_error(probabilities, labels) == 0
    assert negative_log_likelihood(probabilities, labels) == 0


def test_a_probability_of_zero_has_a_finite_likelihood():
    assert negative_log_likelihood(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(7 * np.log(10))


@pytest.mark.parametrize(("column", "published"), [("verb_class", 26), ("noun_class", 71)])
def test_many_shot_classes_of_epic_kitchens_are_as_many_as_published(epic55, column, published):
    with (epic55 / "EPIC_train_action_labels.csv").open(newline="", encoding="utf-8") as file:
        labels = np.array([int(row[column]) for row in csv.DictReader(file)])
    assert len(many_shot_classes(np.bincount(labels))) == published


def test_of_one_sample_a_video_the_sign_flip_test_is_mcnemars():
    for only_first, only_second in itertools.product((0, 1, 2, 7, 30), (0, 1, 3, 12, 60)):
        gained = np.repeat([-1, 1, 0], [only_first, only_second, 5])
        tosses = only_first + only_second
        expected = binomtest(only_first, tosses).pvalue if tosses else 1.0
        assert sign_flip_test(gained, np.arange(len(gained))) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 7)), min_size=1, max_size=40))
def test_the_sign_flip_test_counts_all_ways_to_draw_the_signs(samples):
    gained, videos = (np.array(column) for column in zip(*samples, strict=True))
    sums = np.array([gained[videos == video].sum() for video in np.unique(videos)])
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    assert sign_flip_test(gained, videos) == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum())))


def test_the_sign_flip_test_knows_large_counts():
    gained = np.repeat([-1, 1], [2000, 2400])
    assert 0 < sign_flip_test(gained, np.arange(4400)) < 1e-8


def test_samples_of_one_video_are_no_independent_evidence():
    gained = np.ones(40, np.int64)
    assert sign_flip_test(gained, np.arange(40)) == 2 / 2**40
    assert sign_flip_test(gained, np.arange(40) // 10) == 2 / 2**4


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


def test_wilsons_interval_has_a_width_where_all_or_none_are_correct():
    interval = wilson_interval(np.array([True] * 3), np.arange(3))
    assert interval.value == interval.high == 1
    assert interval.low == pytest.approx(3 / (3 + 1.959964**2))  # the closed form at a share of 1
    assert wilson_interval(np.array([False]), np.arange(1)).high == pytest.approx(1 - 1 / (1 + 1.959964**2))


def test_wilsons_trials_are_videos():
    interval = wilson_interval(np.array([True, True, False, False]), np.array(["a", "a", "b", "b"]))
    assert interval == wilson_interval(np.array([True, False]), np.array(["a", "b"]))
    expected = binomtest(1, 2).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_an_accuracy_of_none_or_all_has_wilsons_interval_and_others_the_bootstraps():
    videos = np.arange(6)
    for correct in (np.zeros(6, bool), np.ones(6, bool)):
        assert accuracy_interval(correct, videos) == wilson_interval(correct, videos)
        labels = np.array([0, 1, 0, 1, 0, 1])
        assert mean_class_accuracy_interval(correct, labels, videos) == wilson_interval(correct, videos)
    mixed = np.array([True, False] * 3)
    assert accuracy_interval(mixed, videos) == mean_interval(mixed, videos)
