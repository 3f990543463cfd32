"""Feature and classification losses against the equations written out (paper eq. 1, 2, 7-9, §4.2)."""

import golden_reference as reference
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kdant_tf.losses import FEATURE_LOSS_NAMES, PENALTIES, REDUCTIONS
from kdant_tf.losses.classification import balance_labels, classification_loss, soft_classification_loss
from kdant_tf.losses.features import feature_loss


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
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES)
def test_feature_loss_is_its_equation(name, penalty, reduction, alpha, delta):
    student, teacher = random_map(1, 2, 2, 2, 3, 5), random_map(2, 2, 2, 2, 3, 5)
    expected = reference.feature_loss(name, student, teacher, alpha, penalty, delta, reduction)
    loss = feature_loss(name, student, teacher, alpha, penalty, delta, reduction)
    assert loss.shape == ()
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


CASES = {
    "seed": st.integers(0, 2**32 - 1),
    "batch": st.integers(1, 2),
    "observed": st.integers(1, 4),
    "future": st.integers(1, 4),
    "channels": st.integers(1, 4),
    "alpha": st.none() | st.floats(0, 1.0),
    "penalty": st.sampled_from(PENALTIES),
    "delta": st.floats(0.05, 3.0),
    "reduction": st.sampled_from(REDUCTIONS),
    "chunk": st.none() | st.integers(1, 4),
}


@settings(max_examples=100)
@given(name=st.sampled_from(["unidirectional", "bidirectional"]), **CASES)
def test_attention_loss_and_its_gradient_are_equations_7_to_9(
    name, seed, batch, observed, future, channels, chunk, **arguments
):
    student = random_map(seed, batch, observed, channels)
    teacher = random_map(seed + 1, batch, future, channels)
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = feature_loss(name, variable, teacher, chunk=chunk, **arguments)
    received = tape.gradient(loss, variable).numpy()

    def expected(point):
        return reference.feature_loss(name, point, teacher, **arguments)

    np.testing.assert_allclose(float(loss), expected(student), rtol=1e-5, atol=1e-9)
    gradient = reference.gradient(expected, student)
    np.testing.assert_allclose(received, gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max() + 1e-9)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradient_of_the_direct_loss_is_that_of_its_equation(penalty):
    student, teacher = random_map(5, 1, 3, 4) + 0.1, random_map(6, 1, 3, 4) + 0.1
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = feature_loss("direct", variable, teacher, penalty=penalty, reduction="sum")
    gradient = reference.gradient(
        lambda point: reference.feature_loss("direct", point, teacher, penalty=penalty, reduction="sum"),
        student,
    )
    np.testing.assert_allclose(
        tape.gradient(loss, variable).numpy(), gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max()
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_loss_of_large_maps_keeps_its_digits(reduction):
    """XLA adds up on a CPU one by one: at this size a plain mean is off by 3e-5."""
    student, teacher = random_map(1, 8, 392, 832), random_map(2, 8, 392, 832)
    difference = np.abs(student.astype(np.float64) - teacher)
    penalties = np.where(difference <= 1, 0.5 * difference**2, difference - 0.5)
    expected = penalties.mean() if reduction == "mean" else penalties.sum(axis=(1, 2)).mean()
    compiled = tf.function(
        lambda a, r: feature_loss("direct", a, r, reduction=reduction), jit_compile=True, autograph=False
    )
    np.testing.assert_allclose(float(compiled(student, teacher)), expected, rtol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=6),
    smoothing=st.just(0.0) | st.floats(0.01, 0.9),
)
def test_classification_loss_of_mixed_labels_is_equation_2(seed, labels, smoothing):
    logits = (3 * np.random.default_rng(seed).standard_normal((len(labels), 5))).astype(np.float32)
    teacher = random_probabilities(seed + 1, len(labels), 5)
    for probabilities in (teacher, None):
        loss = classification_loss(logits, np.array(labels), probabilities, smoothing)
        assert loss.dtype == tf.float32
        expected = reference.classification_loss(logits, np.array(labels), probabilities, smoothing)
        np.testing.assert_allclose(float(loss), expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_mixed_labels_is_probabilities_minus_targets():
    logits = tf.Variable(np.random.default_rng(7).standard_normal((3, 4)).astype(np.float32))
    teacher, labels = random_probabilities(8, 3, 4), np.array([2, -1, 0])
    targets = np.array([[0, 0, 1, 0], teacher[1], [1, 0, 0, 0]])
    with tf.GradientTape() as tape:
        loss = classification_loss(logits, labels, teacher)
    expected = (np.array([reference.softmax(row) for row in logits.numpy()]) - targets) / 3
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=6),
    weight=st.floats(0, 1),
    temperature=st.floats(0.5, 5),
    smoothing=st.just(0.0) | st.floats(0.01, 0.9),
)
def test_soft_classification_loss_is_hintons_on_labelled_samples(
    seed, labels, weight, temperature, smoothing
):
    random = np.random.default_rng(seed)
    logits, teacher = (2 * random.standard_normal((2, len(labels), 5))).astype(np.float32)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = soft_classification_loss(variable, np.array(labels), teacher, weight, temperature, smoothing)

    def expected(point):
        return reference.soft_classification_loss(point, labels, teacher, weight, temperature, smoothing)

    np.testing.assert_allclose(float(loss), expected(logits), rtol=1e-4, atol=1e-5)
    gradient = reference.gradient(expected, logits)
    np.testing.assert_allclose(tape.gradient(loss, variable).numpy(), gradient, rtol=1e-4, atol=1e-5)


def test_a_soft_weight_of_0_is_equation_2():
    logits, labels = random_map(3, 4, 5), np.array([1, -1, 4, -1])
    teacher = random_map(4, 4, 5)
    expected = classification_loss(logits, labels, tf.nn.softmax(teacher))
    received = soft_classification_loss(logits, labels, teacher, 0.0, 3.0)
    np.testing.assert_allclose(float(received), float(expected), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 0.25]])
@pytest.mark.parametrize("focusing", [0.0, 2.0])
def test_balanced_labels_weigh_as_they_should_and_so_do_their_gradients(weights, focusing):
    logits, labels = random_map(1, 5, 4), [0, -1, 3, 1, -1]
    teacher = random_probabilities(2, 5, 4)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        factors = balance_labels(variable, np.array(labels), weights, focusing)
        loss = classification_loss(variable, np.array(labels), teacher, 0.1, factors)

    def expected(point):
        total = 0.0
        for row, label, target in zip(point, labels, teacher, strict=True):
            factor = reference.label_weight(label, reference.softmax(row), weights, focusing)
            total += factor * reference.classification_loss(row[None], np.array([label]), target[None], 0.1)
        return total / len(labels)

    np.testing.assert_allclose(float(loss), expected(logits), rtol=1e-5)
    gradient = reference.gradient(expected, logits)
    np.testing.assert_allclose(tape.gradient(loss, variable).numpy(), gradient, rtol=1e-4, atol=1e-5)
    soft = soft_classification_loss(variable, np.array(labels), np.log(teacher), 0.0, 2.0, 0.1, factors)
    np.testing.assert_allclose(float(soft), float(loss), rtol=1e-5)
    half = soft_classification_loss(variable, np.array(labels), np.log(teacher), 1.0, 2.0, 0.1, factors)
    plain = soft_classification_loss(variable, np.array(labels), np.log(teacher), 1.0, 2.0)
    np.testing.assert_allclose(float(half), float(plain), rtol=1e-6)  # from the teacher alone
