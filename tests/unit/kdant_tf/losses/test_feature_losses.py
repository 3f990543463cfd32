"""Properties of the feature losses (paper §3.2, §4.2)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.losses import FEATURE_LOSS_NAMES, PENALTIES, REDUCTIONS
from kdant_tf.losses.features import feature_loss

SEEDS = st.integers(0, 2**32 - 1)
REAL_LOSSES = ("direct", "unidirectional", "bidirectional")


def random_map(seed: int, *shape: int) -> np.ndarray:
    return np.maximum(2 * np.random.default_rng(seed).standard_normal(shape), 0).astype(np.float32)


@given(seed=SEEDS, penalty=st.sampled_from(PENALTIES), reduction=st.sampled_from(REDUCTIONS))
def test_bidirectional_loss_is_symmetric(seed, penalty, reduction):
    a, r = random_map(seed, 2, 3, 4), random_map(seed + 1, 2, 5, 4)
    there = feature_loss("bidirectional", a, r, penalty=penalty, reduction=reduction)
    back = feature_loss("bidirectional", r, a, penalty=penalty, reduction=reduction)
    np.testing.assert_allclose(float(there), float(back), rtol=1e-5)


def test_unidirectional_loss_is_not_symmetric():
    a, r = random_map(1, 2, 3, 4), random_map(2, 2, 3, 4)
    there, back = float(feature_loss("unidirectional", a, r)), float(feature_loss("unidirectional", r, a))
    assert abs(there - back) > 0.01 * there


def test_bidirectional_loss_is_the_sum_of_both_directions():
    a, r = random_map(1, 2, 3, 4), random_map(2, 2, 5, 4)
    both = float(feature_loss("bidirectional", a, r))
    parts = float(feature_loss("unidirectional", a, r)) + float(feature_loss("unidirectional", r, a))
    np.testing.assert_allclose(both, parts, rtol=1e-5)


@given(seed=SEEDS, name=st.sampled_from(FEATURE_LOSS_NAMES), penalty=st.sampled_from(PENALTIES))
def test_equal_maps_have_no_loss(seed, name, penalty):
    a = random_map(seed, 2, 4, 3)
    np.testing.assert_allclose(float(feature_loss(name, a, a.copy(), penalty=penalty)), 0, atol=1e-10)


@given(seed=SEEDS, data=st.data())
def test_positions_may_be_permuted_but_for_the_direct_loss(seed, data):
    a, r = random_map(seed, 1, 5, 4), random_map(seed + 1, 1, 5, 4)
    first, second = data.draw(st.permutations(range(5))), data.draw(st.permutations(range(5)))
    for name in ("unidirectional", "bidirectional"):
        before, after = feature_loss(name, a, r), feature_loss(name, a[:, first], r[:, second])
        np.testing.assert_allclose(float(after), float(before), rtol=1e-4, atol=1e-6)


def test_direct_loss_depends_on_positions():
    a = random_map(1, 1, 5, 4)
    moved = np.roll(a, 1, axis=1)
    assert float(feature_loss("direct", a, moved)) > 0.1
    np.testing.assert_allclose(float(feature_loss("bidirectional", a, moved)), 0, atol=1e-6)


@pytest.mark.parametrize("name", REAL_LOSSES)
def test_no_gradient_reaches_the_teacher(name):
    student, teacher = tf.Variable(random_map(1, 1, 3, 4)), tf.Variable(random_map(2, 1, 3, 4))
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


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", REAL_LOSSES)
def test_huge_values_give_a_finite_loss_and_gradient(name, penalty):
    student, teacher = tf.Variable(1e4 * random_map(1, 1, 3, 4)), 1e4 * random_map(2, 1, 3, 4)
    with tf.GradientTape() as tape:
        loss = feature_loss(name, student, teacher, penalty=penalty, reduction="sum")
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, student).numpy()).all()


@pytest.mark.parametrize("name", REAL_LOSSES)
def test_sum_is_mean_times_positions_and_channels(name):
    a, r = random_map(1, 3, 4, 5), random_map(2, 3, 4, 5)
    total, mean = float(feature_loss(name, a, r, reduction="sum")), float(feature_loss(name, a, r))
    np.testing.assert_allclose(total, 4 * 5 * mean, rtol=1e-5)


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
