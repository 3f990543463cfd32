"""Properties of the feature losses (paper §3.2, §4.2)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from kdant_tf.losses import FEATURE_LOSS_NAMES
from kdant_tf.losses.features import feature_loss

SEEDS = st.integers(0, 2**32 - 1)
REAL_LOSSES = FEATURE_LOSS_NAMES[1:]


def random_map(seed: int, *shape: int) -> np.ndarray:
    return np.maximum(2 * np.random.default_rng(seed).standard_normal(shape), 0).astype(np.float32)


@pytest.mark.parametrize("name", REAL_LOSSES)
def test_no_gradient_reaches_the_teacher(name):
    student, teacher = tf.Variable(random_map(1, 2, 3, 4)), tf.Variable(random_map(2, 2, 3, 4))
    with tf.GradientTape() as tape:
        loss = feature_loss(name, student, teacher)
    to_student, to_teacher = tape.gradient(loss, [student, teacher])
    assert to_teacher is None
    assert np.abs(to_student.numpy()).max() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES)
def test_half_precision_maps_give_a_float32_loss(name, dtype):
    a, r = tf.cast(random_map(1, 1, 3, 4), dtype), tf.cast(random_map(2, 1, 3, 4), dtype)
    loss = feature_loss(name, a, r)
    assert loss.dtype == tf.float32
    exact = feature_loss(name, tf.cast(a, "float32"), tf.cast(r, "float32"))
    assert float(loss) == float(exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURE_LOSS_NAMES)
def test_losses_run_in_a_function_of_unknown_sizes(name):
    a, r = random_map(1, 2, 1, 2, 2, 4), random_map(2, 2, 1, 2, 2, 4)
    function = tf.function(
        lambda student, teacher: feature_loss(name, student, teacher),
        input_signature=[tf.TensorSpec((None, None, None, None, 4))] * 2,
    )
    np.testing.assert_allclose(float(function(a, r)), float(feature_loss(name, a, r)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "both"}, r"`name` should be one of .*bidirectional.*'both'"),
        ({"name": "direct", "penalty": "l1"}, r"`penalty` should be one of huber, squared.*'l1'"),
        ({"name": "direct", "reduction": "max"}, r"`reduction` should be one of mean, sum.*'max'"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        feature_loss(student=random_map(1, 1, 3, 4), teacher=random_map(2, 1, 3, 4), **arguments)


def test_direct_loss_wants_as_many_positions():
    with pytest.raises(ValueError, match=r"equal shapes.*\(1, 3, 4\) and \(1, 5, 4\)"):
        feature_loss("direct", random_map(1, 1, 3, 4), random_map(2, 1, 5, 4))


@pytest.mark.parametrize("name", ["unidirectional", "bidirectional"])
def test_attention_losses_want_equal_channels(name):
    with pytest.raises(ValueError, match="channels"):
        feature_loss(name, random_map(1, 1, 3, 4), random_map(2, 1, 3, 5))
