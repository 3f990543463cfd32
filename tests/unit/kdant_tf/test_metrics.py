"""Metrics against scikit-learn, and where it has no answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from kdant_tf.evaluation.metrics import mean_class_accuracy, top_k_accuracy


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
