"""Feature and classification losses against the equations written out (paper eq. 1, 2, 7-9, §4.2)."""

import golden_reference as reference
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.losses.classification import classification_loss
from kdant_tf.losses.features import FEATURE_LOSSES, PENALTIES, REDUCTIONS, feature_loss


def random_map(seed: int, *shape: int, scale: float = 2.0) -> np.ndarray:
    values = scale * np.random.default_rng(seed).standard_normal(shape)
    return np.maximum(values, 0).astype(np.float32)


def random_probabilities(seed: int, samples: int, classes: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((samples, classes)) * 2
    return np.array([reference.softmax(row) for row in rows], dtype=np.float32)


@pytest.mark.parametrize("delta", [0.25, 1.0])
@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_feature_loss_is_its_equation(name, penalty, reduction, alpha, delta):
    student, teacher = random_map(1, 2, 2, 2, 3, 5), random_map(2, 2, 2, 2, 3, 5)
    expected = reference.feature_loss(name, student, teacher, alpha, penalty, delta, reduction)
    loss = feature_loss(name, student, teacher, alpha, penalty, delta, reduction)
    assert loss.shape == ()
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["unidirectional", "bidirectional"])
def test_feature_loss_of_maps_with_different_positions(name, reduction):
    student, teacher = random_map(3, 2, 4, 5), random_map(4, 2, 1, 3, 2, 5)
    expected = reference.feature_loss(name, student, teacher, reduction=reduction)
    np.testing.assert_allclose(
        float(feature_loss(name, student, teacher, reduction=reduction)), expected, rtol=1e-5
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    observed=st.integers(2, 4),
    future=st.integers(2, 4),
    channels=st.integers(1, 5),
    delta=st.floats(0.05, 3.0),
    penalty=st.sampled_from(PENALTIES),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_bidirectional_loss_is_equations_7_to_9(seed, observed, future, channels, delta, penalty, reduction):
    student, teacher = random_map(seed, 2, observed, channels), random_map(seed + 1, 2, future, channels)
    expected = reference.feature_loss("bidirectional", student, teacher, None, penalty, delta, reduction)
    loss = feature_loss("bidirectional", student, teacher, None, penalty, delta, reduction)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", ["direct", "unidirectional", "bidirectional"])
def test_students_gradient_is_that_of_the_equation(name, penalty):
    """Central differences of the float64 reference; no kink of Huber's penalty is near."""
    student, teacher = random_map(5, 1, 3, 4) + 0.1, random_map(6, 1, 3, 4) + 0.1
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = feature_loss(name, variable, teacher, penalty=penalty, reduction="sum")
    gradient = tape.gradient(loss, variable).numpy()
    step = 1e-5
    for index in np.ndindex(student.shape):
        up, down = student.astype(np.float64), student.astype(np.float64)
        up[index] += step
        down[index] -= step
        rise = reference.feature_loss(name, up, teacher, penalty=penalty, reduction="sum")
        fall = reference.feature_loss(name, down, teacher, penalty=penalty, reduction="sum")
        np.testing.assert_allclose(
            gradient[index], (rise - fall) / (2 * step), rtol=2e-4, atol=2e-5, err_msg=str(index)
        )


@given(seed=st.integers(0, 2**32 - 1), labels=st.lists(st.integers(-1, 4), min_size=1, max_size=6))
def test_classification_loss_of_mixed_labels_is_equation_2(seed, labels):
    logits = (3 * np.random.default_rng(seed).standard_normal((len(labels), 5))).astype(np.float32)
    teacher = random_probabilities(seed + 1, len(labels), 5)
    loss = classification_loss(logits, np.array(labels), teacher)
    assert loss.dtype == tf.float32
    expected = reference.classification_loss(logits, np.array(labels), teacher)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_mixed_labels_is_probabilities_minus_targets():
    logits = tf.Variable(np.random.default_rng(7).standard_normal((3, 4)).astype(np.float32))
    teacher, labels = random_probabilities(8, 3, 4), np.array([2, -1, 0])
    targets = np.array([[0, 0, 1, 0], teacher[1], [1, 0, 0, 0]])
    with tf.GradientTape() as tape:
        loss = classification_loss(logits, labels, teacher)
    expected = (np.array([reference.softmax(row) for row in logits.numpy()]) - targets) / 3
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected, rtol=1e-4, atol=1e-6)
