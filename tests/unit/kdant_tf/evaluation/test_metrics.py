"""Metrics against scikit-learn, and where it has no answer."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, recall_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from kdant_tf.evaluation.metrics import (
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    many_shot_classes,
    mean_class_accuracy,
    mean_top_k_recall,
    negative_log_likelihood,
    per_class_accuracy,
    top_k_accuracy,
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
