"""The classification loss at its edges; its equation is tested in tests/golden."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.losses.classification import (
    balance_labels,
    class_weights,
    classification_loss,
    classification_targets,
    kl_divergence,
    label_targets,
)


def random_logits(seed: int, samples: int = 4, classes: int = 5) -> np.ndarray:
    return (2 * np.random.default_rng(seed).standard_normal((samples, classes))).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), labels=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_labelled_batches_give_kerass_crossentropy(seed, labels):
    logits, labels = random_logits(seed, len(labels)), np.array(labels)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    teacher = tf.nn.softmax(random_logits(seed + 1, len(labels)))
    for probabilities in (None, teacher):
        loss = classification_loss(logits, labels, probabilities)
        np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5, atol=1e-6)


def test_targets_are_the_label_or_the_teacher():
    teacher = tf.nn.softmax(random_logits(1, 3, 4))
    targets = classification_targets(np.array([3, -1, 0]), teacher).numpy()
    np.testing.assert_array_equal(targets[0], [0, 0, 0, 1])
    np.testing.assert_array_equal(targets[1], teacher.numpy()[1])
    np.testing.assert_array_equal(targets[2], [1, 0, 0, 0])


@given(smoothing=st.floats(0, 0.9), share=st.floats(0, 1))
def test_mixed_labels_are_smoothed_as_each_of_them_is(smoothing, share):
    labels, others = np.array([3, -1, 0]), np.array([1, -1, 0])
    shares = np.array([share, 0.5, share], np.float32)
    rows = label_targets(labels, 4, smoothing, (others, shares)).numpy()
    own, other = (label_targets(each, 4, smoothing).numpy() for each in (labels, others))
    np.testing.assert_allclose(
        rows, shares[:, None] * own + (1 - shares[:, None]) * other, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(rows.sum(axis=1), [1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_labels_may_be_of_either_integer_type(dtype):
    logits, teacher = random_logits(1), tf.nn.softmax(random_logits(2))
    losses = [
        classification_loss(logits, np.array([0, -1, 4, 2], kind), teacher) for kind in (dtype, np.int64)
    ]
    assert float(losses[0]) == float(losses[1])


def test_zero_probabilities_of_the_teacher_count_as_nothing():
    logits = tf.Variable(random_logits(3, 2, 3))
    teacher = np.array([[1, 0, 0], [0.5, 0, 0.5]], dtype=np.float32)
    with tf.GradientTape() as tape:
        loss = classification_loss(logits, np.array([-1, -1]), teacher)
    log_probabilities = tf.nn.log_softmax(logits).numpy()
    expected = (-log_probabilities[0, 0] + np.log(0.5) - log_probabilities[1, [0, 2]].mean()) / 2
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_certain_networks_give_finite_losses():
    logits = tf.Variable([[1e4, -1e4], [-1e4, 1e4]])
    teacher = tf.nn.softmax([[-1e4, 1e4], [-1e4, 1e4]])
    with tf.GradientTape() as tape:
        loss = classification_loss(logits, np.array([-1, 0]), teacher)
    np.testing.assert_allclose(float(loss), 2e4, rtol=1e-5)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_student_equal_to_its_teacher_has_no_loss(seed):
    logits = random_logits(seed)
    loss = classification_loss(logits, np.full(4, -1), tf.nn.softmax(logits))
    np.testing.assert_allclose(float(loss), 0, atol=2e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_divergence_is_not_negative(seed):
    targets = tf.nn.softmax(random_logits(seed))
    assert float(kl_divergence(targets, random_logits(seed + 1))) >= -1e-6


def test_no_gradient_reaches_the_teacher():
    teacher_logits = tf.Variable(random_logits(2))
    with tf.GradientTape() as tape:
        loss = classification_loss(random_logits(1), np.array([-1, -1, 0, 1]), tf.nn.softmax(teacher_logits))
    assert tape.gradient(loss, teacher_logits) is None


def test_half_precision_logits_give_a_float32_loss():
    logits = tf.cast(random_logits(1), "bfloat16")
    loss = classification_loss(logits, np.array([0, -1, 2, -1]), tf.nn.softmax(random_logits(2)))
    assert loss.dtype == tf.float32
    exact = classification_loss(
        tf.cast(logits, "float32"), np.array([0, -1, 2, -1]), tf.nn.softmax(random_logits(2))
    )
    assert float(loss) == float(exact)


def test_other_classes_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(4, 6\)"):
        kl_divergence(tf.nn.softmax(random_logits(1, 4, 5)), random_logits(2, 4, 6))


def test_another_batch_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 5\) and \(4, 5\)"):
        kl_divergence(tf.nn.softmax(random_logits(1, 1, 5)), random_logits(2, 4, 5))


@given(
    counts=st.lists(st.integers(0, 5000), min_size=2, max_size=9).filter(any),
    balance=st.sampled_from(["inverse", "effective"]),
)
def test_weights_of_classes_leave_the_size_of_the_loss(counts, balance):
    weights = class_weights(counts, balance)
    np.testing.assert_allclose(np.dot(counts, weights), sum(counts), rtol=1e-9)
    numbers = [n if balance == "inverse" else (1 - 0.999**n) / (1 - 0.999) for n in counts]
    shares = [weight * number for weight, number in zip(weights, numbers, strict=True) if number]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-9)
    assert all(weight == 0 for weight, count in zip(weights, counts, strict=True) if count == 0)


def test_a_sure_and_right_network_has_finite_focal_gradients():
    logits = tf.Variable([[80.0, -80.0], [-80.0, 80.0]])
    with tf.GradientTape() as tape:
        weights = balance_labels(logits, np.array([0, 0]), None, 2.0)
        loss = classification_loss(logits, np.array([0, 0]), None, 0.0, weights)
    np.testing.assert_allclose(float(loss), 80.0, rtol=1e-5)  # of the second alone
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()
